// The border between rows sharded over tp (sequence parallelism: residual stream, norms, router) and layers that see all rows but
// hold a share of the heads or channels (spec/parallelism.md 7):
//
//   forward   x = all_gather(x_shard);    y_shard = reduce_scatter(y)      y of a sharded layer is one term of a sum over tp
//   backward  d_y = all_gather(d_y_shard); d_x_shard = reduce_scatter(d_x)
//
// With one tensor-parallel rank nothing is copied.
#pragma once

#include <memory>

#include "comm/communicator.h"
#include "nn/layer.h"

namespace hadal::parallel {

class TensorBoundary {
 public:
  /// `tp` is null for one rank, and outlives this.
  explicit TensorBoundary(comm::Communicator* tp) : tp_(tp != nullptr && tp->size() > 1 ? tp : nullptr) {}

  bool trivial() const { return tp_ == nullptr; }
  /// Rows [T/tp, w] of every rank -> [T, w], ranks in order.
  Tensor gather(ConstView shard) const;
  /// Sum over ranks of [T, w] -> this rank's rows [T/tp, w].
  Tensor reduce_scatter(Tensor whole) const;

 private:
  comm::Communicator* tp_;
};

/// A sharded layer between two borders. Rows of x and y are shards over tp.
class TensorParallelLayer : public nn::Layer {
 public:
  /// `inner` outlives this.
  TensorParallelLayer(nn::Layer& inner, comm::Communicator* tp) : inner_(inner), boundary_(tp) {}
  TensorParallelLayer(std::unique_ptr<nn::Layer> inner, comm::Communicator* tp) : owned_(std::move(inner)), inner_(*owned_), boundary_(tp) {}

  Tensor forward(nn::Context& ctx, ConstView x, nn::SavedPtr* saved) override;
  Tensor backward_input(nn::Context& ctx, ConstView d_y, nn::Saved& saved) override;
  void backward_weight(nn::Context& ctx, nn::Saved& saved) override;
  void collect(nn::ParameterList& parameters) override { inner_.collect(parameters); }

 private:
  std::unique_ptr<nn::Layer> owned_;
  nn::Layer& inner_;
  TensorBoundary boundary_;
};

}  // namespace hadal::parallel
