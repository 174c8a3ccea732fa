#include "parallel/tensor_boundary.h"

#include <utility>

#include "core/copy.h"
#include "parallel/rounded_sum.h"

namespace hadal::parallel {
namespace {

struct BoundarySaved : nn::Saved {
  Tensor x, d_y;  ///< [T, d], as the inner layer saw them
  nn::SavedPtr inner;
};

}  // namespace

Tensor TensorBoundary::gather(ConstView shard) const {
  HADAL_CHECK(tp_ != nullptr, "nothing to gather");
  Tensor whole = Tensor::empty({shard.shape[0] * tp_->size(), shard.shape[1]}, shard.dtype, shard.device);
  tp_->all_gather(shard, whole);
  return whole;
}

Tensor TensorBoundary::reduce_scatter(Tensor whole) const {
  if (tp_ == nullptr) return whole;
  Tensor shard = Tensor::empty({whole.shape()[0] / tp_->size(), whole.shape()[1]}, whole.dtype(), whole.device());
  Stream stream = stream_of(whole.device());
  reduce_scatter_sum(stream, *tp_, whole, shard);
  return shard;
}

Tensor TensorParallelLayer::forward(nn::Context& ctx, ConstView x, nn::SavedPtr* saved) {
  if (boundary_.trivial()) return inner_.forward(ctx, x, saved);
  BoundarySaved scratch;
  BoundarySaved* kept = nn::make_saved<BoundarySaved>(saved);
  BoundarySaved& s = kept != nullptr ? *kept : scratch;
  s.x = boundary_.gather(x);
  return boundary_.reduce_scatter(inner_.forward(ctx, s.x, saved == nullptr ? nullptr : &s.inner));
}

Tensor TensorParallelLayer::backward_input(nn::Context& ctx, ConstView d_y, nn::Saved& saved) {
  if (boundary_.trivial()) return inner_.backward_input(ctx, d_y, saved);
  auto& s = nn::saved_as<BoundarySaved>(saved);
  s.d_y = boundary_.gather(d_y);
  return boundary_.reduce_scatter(inner_.backward_input(ctx, s.d_y, *s.inner));
}

void TensorParallelLayer::backward_weight(nn::Context& ctx, nn::Saved& saved) {
  if (boundary_.trivial()) return inner_.backward_weight(ctx, saved);
  inner_.backward_weight(ctx, *nn::saved_as<BoundarySaved>(saved).inner);
}

}  // namespace hadal::parallel
