// cuDNN's attention behind flash attention's args (cudnn_attention.h). Queries, values and all gradients stay where they are, whatever
// their strides; only MLA's keys are put together from [k | k_shared] first, and their gradient is taken apart afterwards.
#include <utility>

#include "core/tensor.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/cudnn/pack.h"
#include "kernels/cuda/cudnn/plans.h"
#include "kernels/cuda/cudnn_attention.h"
#include "kernels/determinism.h"

namespace hadal::kernels::cuda::cudnn {
namespace {

constexpr std::int64_t kGrain = 8;  ///< elements of 16 bytes
constexpr std::int64_t kLargestWidth = 256;

bool fits(const ConstHeads& x) {
  return x.dtype == DType::kBf16 && reinterpret_cast<std::uintptr_t>(x.data) % 16 == 0 && x.width % kGrain == 0 && x.token_stride % kGrain == 0 &&
         (x.heads == 1 || x.head_stride % kGrain == 0);
}

template <class Args>
bool takes(const Args& args) {
  const bool causal = args.mask.kind == AttentionMask::Kind::kCausal && args.mask.window == 0 && args.query_start == 0;
  return causal && args.q.tokens > 0 && args.q.tokens == args.k.tokens && args.q.width <= kLargestWidth && args.v.width <= kLargestWidth &&
         fits(args.q) && fits(args.k) && fits(args.v) && (!args.k_shared.defined() || fits(args.k_shared));
}

Strides strides_of(const ConstHeads& x, std::int64_t rows) {
  return {rows * x.token_stride, x.heads == 1 ? x.width : x.head_stride, x.token_stride};
}

/// The keys as cuDNN wants them: in place without a shared part.
template <class Args>
ConstHeads whole_keys(const Args& args, const Tensor& packed) {
  return args.k_shared.defined() ? heads_of(packed.view(), args.k.heads, args.q.width, 0, args.q.width) : args.k;
}

/// Room for the keys, or their gradients, with all columns.
template <class Args>
Tensor room_for_keys(const Stream& stream, const Args& args) {
  if (!args.k_shared.defined()) return {};
  return Tensor::empty({args.k.tokens, args.k.heads, args.q.width}, DType::kBf16, stream.device());
}

template <class Args>
Shape shape_of(const Args& args, const ConstHeads& k) {
  const std::int64_t rows = args.q.tokens / args.batch;
  Shape shape{.batch = args.batch,
              .heads = args.q.heads,
              .kv_heads = args.k.heads,
              .rows = rows,
              .key_width = args.q.width,
              .value_width = args.v.width,
              .scale = static_cast<float>(args.scale)};
  shape.q = strides_of(args.q, rows);
  shape.k = strides_of(k, rows);
  shape.v = strides_of(args.v, rows);
  shape.o = strides_of(args.o, rows);
  return shape;
}

Tensor room_for_statistics(const Stream& stream, const Shape& shape) {
  return Tensor::empty({shape.batch, shape.heads, shape.rows}, DType::kF32, stream.device());
}

bool forward(Stream& stream, const FlashAttentionForward& args) {
  if (!takes(args) || !fits(args.o)) return false;
  const Tensor packed = room_for_keys(stream, args);
  const ConstHeads k = whole_keys(args, packed);
  const Shape shape = shape_of(args, k);
  if (!has_plan(stream, shape)) return false;
  if (packed.defined()) pack_keys(native(stream), args.k, args.k_shared, const_cast<void*>(k.data));
  Tensor statistics = room_for_statistics(stream, shape);
  execute(stream, shape, {.q = args.q.data, .k = k.data, .v = args.v.data, .o = args.o.data, .statistics = statistics.view().data});
  statistics_by_row(native(stream), statistics.as<float>(), args.lse.as<float>(), shape.batch, shape.rows, shape.heads);
  return true;
}

bool backward(Stream& stream, const FlashAttentionBackward& args) {
  if (!nondeterministic_allowed() || !takes(args) || args.add_to_keys) return false;
  if (!fits(args.o) || !fits(args.d_o) || !fits(args.d_q) || !fits(args.d_k) || !fits(args.d_v)) return false;
  if (args.k_shared.defined() && !fits(args.d_k_shared)) return false;
  const Tensor packed = room_for_keys(stream, args);
  Tensor d_packed = room_for_keys(stream, args);
  const ConstHeads k = whole_keys(args, packed), d_k = d_packed.defined() ? whole_keys(args, d_packed) : ConstHeads(args.d_k);
  Shape shape = shape_of(args, k);
  shape.backward = true;
  shape.d_o = strides_of(args.d_o, shape.rows);
  shape.d_q = strides_of(args.d_q, shape.rows);
  shape.d_k = strides_of(d_k, shape.rows);
  shape.d_v = strides_of(args.d_v, shape.rows);
  if (!has_plan(stream, shape)) return false;
  if (packed.defined()) pack_keys(native(stream), args.k, args.k_shared, const_cast<void*>(k.data));
  Tensor statistics = room_for_statistics(stream, shape);
  statistics_by_head(native(stream), args.lse.as<float>(), statistics.as<float>(), shape.batch, shape.rows, shape.heads);
  execute(stream, shape,
          {.q = args.q.data,
           .k = k.data,
           .v = args.v.data,
           .o = const_cast<void*>(args.o.data),
           .statistics = statistics.view().data,
           .d_o = args.d_o.data,
           .d_q = args.d_q.data,
           .d_k = const_cast<void*>(d_k.data),
           .d_v = args.d_v.data});
  if (d_packed.defined()) unpack_key_gradients(native(stream), d_packed.view().data, args.d_k, args.d_k_shared);
  return true;
}

constexpr CudnnAttention kAttention{forward, backward};
const bool registered = [] {
  cudnn_attention = &kAttention;
  return true;
}();

}  // namespace
}  // namespace hadal::kernels::cuda::cudnn
