// Values and gradients of one replica group in flat memory, and the two collectives of ZeRO-1 over it (spec/parallelism.md 6):
// the gradient of each bucket is summed onto the owners of its segments, updated values are gathered from them. Alone, neither
// moves anything.
//
// Buckets are reduced in one fixed order, the last one first as backward goes: ranks that finish parameters in different orders
// still start the same collectives in the same order.
#pragma once

#include <cstdint>
#include <vector>

#include "comm/communicator.h"
#include "core/tensor.h"
#include "nn/parameter.h"
#include "optim/flat_layout.h"

namespace hadal::optim {

/// Ranks that hold the same slices of the same parameters, in the same order. `comm` is these ranks' own while gradients are
/// reduced: from the first ready() of a step to the end of finish() nobody else uses it.
struct ReplicaGroup {
  comm::Communicator* comm = nullptr;
  nn::ParameterList parameters;
};

class FlatGroup {
 public:
  /// Moves the parameters (trainable, of one dtype, on one device) into its own memory, where they stay: it outlives every use of
  /// them. Gradients are in the accumulation dtype.
  FlatGroup(ReplicaGroup group, std::int64_t bucket_bytes);

  comm::Communicator& comm() { return *comm_; }
  const nn::ParameterList& parameters() const { return parameters_; }
  const FlatLayout& layout() const { return layout_; }
  /// Of the values.
  Storage storage() const { return parameters_.front()->storage(); }
  /// This rank's pieces, by bucket and within a bucket by parameter.
  const std::vector<FlatLayout::Piece>& owned() const { return owned_; }
  View value(const FlatLayout::Piece& piece) { return view_of(values_, piece); }
  View grad(const FlatLayout::Piece& piece) { return view_of(grads_, piece); }

  /// Begins a step.
  void zero_grad();
  /// This rank will add nothing more to the gradient of parameter `index`: starts what can be started.
  void ready(std::size_t index);
  /// The same for all that are left; returns when owned pieces hold the sum over the group. Other elements then mean nothing.
  void finish();

  /// Owned values of this bucket are updated: their way to the other ranks begins. Buckets in ascending order.
  void start_gather(std::size_t bucket);
  /// Returns when every started bucket's values are here.
  void wait_values();

 private:
  bool alone() const { return layout_.ranks() == 1; }
  View view_of(std::vector<Tensor>& slabs, const FlatLayout::Piece& piece);
  View bucket_of(std::vector<Tensor>& slabs, std::size_t bucket);
  View segment_of(View bucket) const;
  void start_reduction();

  comm::Communicator* comm_;
  nn::ParameterList parameters_;
  FlatLayout layout_;
  std::vector<FlatLayout::Piece> owned_;
  std::vector<std::vector<std::size_t>> buckets_of_;  ///< by parameter
  std::vector<Tensor> values_, grads_;                ///< by slab

  std::vector<char> is_ready_;         ///< by parameter
  std::vector<std::int64_t> missing_;  ///< by bucket: parameters that are not ready
  std::size_t to_start_ = 0;           ///< buckets [0, to_start_) are not started yet
  std::vector<comm::Handle> reductions_, gathers_;
};

}  // namespace hadal::optim
