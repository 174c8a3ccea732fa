#include "nn/attention/gather_tokens.h"

#include <vector>

#include "nn/attention/split_heads.h"

namespace hadal::nn {
namespace {

/// exchange(old rows, new rows), then the new ones take the tensors' place.
template <class Exchange>
void replace(std::initializer_list<Tensor*> tensors, std::int64_t rows, const Exchange& exchange) {
  std::vector<Tensor> replaced;
  std::vector<kernels::ConstHeads> from;
  std::vector<kernels::Heads> to;
  for (Tensor* tensor : tensors) {
    replaced.push_back(Tensor::empty({rows, tensor->shape()[1]}, tensor->dtype(), tensor->device()));
    from.push_back(split_heads(static_cast<ConstView>(*tensor), 1));
    to.push_back(split_heads(replaced.back().view(), 1));
  }
  exchange(from, to);
  std::size_t i = 0;
  for (Tensor* tensor : tensors) *tensor = std::move(replaced[i++]);
}

}  // namespace

void gather_rows(const Context& ctx, RowSpacing spacing, std::initializer_list<Tensor*> matrices) {
  if (ctx.sequence == nullptr) return;
  replace(matrices, ctx.batch * spacing.count,
          [&](const auto& from, const auto& to) { ctx.sequence->gather(ctx.stream, ctx.batch, spacing, from, to); });
}

void reduce_scatter_rows(const Context& ctx, RowSpacing spacing, std::int64_t own_rows, std::initializer_list<Tensor*> matrices) {
  if (ctx.sequence == nullptr) return;
  replace(matrices, own_rows,
          [&](const auto& from, const auto& to) { ctx.sequence->reduce_scatter(ctx.stream, ctx.batch, spacing, from, to); });
}

Tensor key_gradient(const Context& ctx, const Tensor& like) {
  const Storage storage(like.dtype(), like.device());
  return ctx.sequence == nullptr ? Tensor::empty(like.shape(), storage) : Tensor::zeros(like.shape(), storage);
}

}  // namespace hadal::nn
