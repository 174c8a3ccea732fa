// The router's products on bf16 tensor cores: x is bf16 as it is, an f32 operand v is cut into parts high + middle + low of 8 bits each
// (v = high + middle + low exactly), which lie side by side so that one product takes them all:
//   logits = x [high; middle; low]^T of w, three columns summed, the smallest first
//   d_x   += [high | middle | high] of d_logits  times  [high; high; middle] of w
//   d_w   += [high | middle]^T of d_logits times x, two rows summed
#include "kernels/cuda/check.h"
#include "kernels/cuda/device_math.cuh"
#include "kernels/gemm.h"
#include "kernels/linear.h"
#include "kernels/op.h"
#include "kernels/router_product.h"

namespace hadal::kernels::cuda {
namespace {

using std::int64_t;

constexpr int kThreads = 256;
constexpr int kParts = 3;

enum class Part { kHigh, kMiddle, kLow };

/// Which parts of an operand lie side by side, and how far apart.
struct Layout {
  Part parts[kParts];
  int64_t row_stride, part_stride;
};

__device__ __nv_bfloat16 part_of(float value, Part part) {
  const __nv_bfloat16 high = __float2bfloat16_rn(value);
  if (part == Part::kHigh) return high;
  const float rest = value - __bfloat162float(high);
  const __nv_bfloat16 middle = __float2bfloat16_rn(rest);
  return part == Part::kMiddle ? middle : __float2bfloat16_rn(rest - __bfloat162float(middle));
}

__global__ void __launch_bounds__(kThreads) cut(const float* from, int64_t count, int64_t columns, Layout layout, __nv_bfloat16* to) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= count) return;
  const float value = from[i];
  __nv_bfloat16* const at = to + i / columns * layout.row_stride + i % columns;
#pragma unroll
  for (int p = 0; p < kParts; ++p) at[p * layout.part_stride] = part_of(value, layout.parts[p]);
}

/// logits [rows, columns] of wide [rows, 3 columns].
__global__ void __launch_bounds__(kThreads) sum_columns(const float* wide, int64_t count, int64_t columns, float* logits) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= count) return;
  const float* const from = wide + i / columns * kParts * columns + i % columns;
  logits[i] = (from[2 * columns] + from[columns]) + from[0];
}

/// d_w of two stacked matrices of its size.
__global__ void __launch_bounds__(kThreads) sum_rows(const float* stacked, int64_t count, bool add, float* d_w) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= count) return;
  const float sum = stacked[count + i] + stacked[i];
  d_w[i] = add ? d_w[i] + sum : sum;
}

unsigned blocks_of(int64_t count) { return static_cast<unsigned>((count + kThreads - 1) / kThreads); }

Tensor parts_of(Stream& stream, const ConstView& values, Shape shape, const Layout& layout, const char* op) {
  Tensor parts = Tensor::empty(shape, DType::kBf16, stream.device());
  const int64_t count = values.numel();
  auto* const to = static_cast<__nv_bfloat16*>(parts.view().data);
  cut<<<blocks_of(count), kThreads, 0, native(stream)>>>(values.as<float>(), count, values.shape[1], layout, to);
  check_launch(op);
  return parts;
}

/// Parts one below the other.
Tensor stacked_parts(Stream& stream, const ConstView& w, const Part (&parts)[kParts], const char* op) {
  const int64_t rows = w.shape[0], columns = w.shape[1];
  return parts_of(stream, w, {kParts * rows, columns}, {{parts[0], parts[1], parts[2]}, columns, rows * columns}, op);
}

void logits(Stream& stream, const RouterLogits& args) {
  if (args.x.dtype == DType::kF32) return linear_forward(stream, args.x, args.w, args.logits);
  const int64_t tokens = args.x.shape[0], experts = args.w.shape[0], count = args.logits.numel();
  const Tensor w = stacked_parts(stream, args.w, {Part::kHigh, Part::kMiddle, Part::kLow}, args.kName);
  Tensor wide = Tensor::empty({tokens, kParts * experts}, DType::kF32, stream.device());
  run(stream, Gemm{.a = args.x, .b = w, .c = wide, .transpose_b = true});
  sum_columns<<<blocks_of(count), kThreads, 0, native(stream)>>>(wide.as<float>(), count, experts, args.logits.as<float>());
  check_launch(args.kName);
}

void backward(Stream& stream, const RouterLogitsBackward& args) {
  if (args.x.dtype == DType::kF32) {
    linear_backward_input(stream, args.d_logits, args.w, args.d_x, 1);
    return linear_backward_weight(stream, args.d_logits, args.x, args.d_w, args.add ? 1 : 0);
  }
  const int64_t tokens = args.x.shape[0], experts = args.w.shape[0], width = kParts * experts, count = args.d_w.numel();
  const Tensor d_logits = parts_of(stream, args.d_logits, {tokens, width}, {{Part::kHigh, Part::kMiddle, Part::kHigh}, width, experts}, args.kName);
  {
    const Tensor w = stacked_parts(stream, args.w, {Part::kHigh, Part::kHigh, Part::kMiddle}, args.kName);
    run(stream, Gemm{.a = d_logits, .b = w, .c = args.d_x, .beta = 1});
  }
  Tensor stacked = Tensor::empty({2 * experts, args.x.shape[1]}, DType::kF32, stream.device());
  const ConstView two_parts{d_logits.view().data, DType::kBf16, {tokens, 2 * experts}, stream.device()};
  run(stream, Gemm{.a = two_parts, .b = args.x, .c = stacked, .transpose_a = true, .lda = width});
  sum_rows<<<blocks_of(count), kThreads, 0, native(stream)>>>(stacked.as<float>(), count, args.add, args.d_w.as<float>());
  check_launch(args.kName);
}

const RegisterCuda<RouterLogits> registered_logits{logits};
const RegisterCuda<RouterLogitsBackward> registered_backward{backward};

}  // namespace
}  // namespace hadal::kernels::cuda
