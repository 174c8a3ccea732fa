// Grouped products: the three ops as one GroupedProduct, with SwiGLU behind it or not, and the kernel that takes it.
#include "kernels/cuda/check.h"
#include "kernels/cuda/grouped_product.h"
#include "kernels/cuda/grouped_tiles.cuh"
#include "kernels/cuda/swiglu.h"
#include "kernels/grouped_gemm.h"
#include "kernels/grouped_swiglu.h"
#include "kernels/op.h"

namespace hadal::kernels::cuda {
namespace {

constexpr int kZeroThreads = 256, kZeroBlocks = 32;

/// Matrices of experts without rows; one row of blocks an expert.
__global__ void zero_without_rows(const std::int64_t* offsets, std::int64_t size, float* d_w) {
  const std::int64_t expert = blockIdx.y;
  if (offsets[expert] != offsets[expert + 1]) return;
  for (std::int64_t i = std::int64_t{blockIdx.x} * kZeroThreads + threadIdx.x; i < size; i += kZeroBlocks * kZeroThreads) d_w[expert * size + i] = 0;
}

GroupedProduct product_of(GroupedForm form, const ConstView& a, const ConstView& b, const View& c, const ConstView& offsets, const Shape& weights,
                          const char* op, bool add = false) {
  HADAL_CHECK(weights[0] <= kMaxGroups, "{} over {} experts, at most {} on CUDA", op, weights[0], kMaxGroups);
  HADAL_CHECK(a.shape[0] <= INT32_MAX && weights[1] <= INT32_MAX / 2 && weights[2] <= INT32_MAX / 2, "{} over {} rows, weights {}", op, a.shape[0], weights.str());
  return {form,
          a.data,
          b.data,
          c.data,
          offsets.as<std::int64_t>(),
          static_cast<int>(a.shape[0]),
          static_cast<int>(weights[0]),
          static_cast<int>(weights[2]),
          static_cast<int>(weights[1]),
          add};
}

void multiply(Stream& stream, GroupedForm form, const ConstView& a, const ConstView& b, const View& c, const ConstView& offsets, const Shape& weights,
              const char* op, bool add = false) {
  const GroupedProduct product = product_of(form, a, b, c, offsets, weights, op, add);
  if (a.dtype == DType::kF32) return multiply_grouped_f32(stream, product, op);
  HADAL_CHECK(a.dtype == DType::kBf16, "{} of {} on CUDA, where f32 and bf16 are computed", op, name_of(a.dtype));
  if (fits_wgmma(product)) return multiply_grouped_wgmma(stream, product, op);
  multiply_grouped_bf16(stream, product, op);
}

void forward(Stream& stream, const GroupedGemmForward& args) {
  multiply(stream, GroupedForm::kForward, args.x, args.w, args.y, args.offsets, args.w.shape, args.kName);
}

void backward_input(Stream& stream, const GroupedGemmBackwardInput& args) {
  multiply(stream, GroupedForm::kBackwardInput, args.d_y, args.w, args.d_x, args.offsets, args.w.shape, args.kName);
}

void backward_weight(Stream& stream, const GroupedGemmBackwardWeight& args) {
  multiply(stream, GroupedForm::kBackwardWeight, args.d_y, args.x, args.d_w, args.offsets, args.d_w.shape, args.kName, args.add);
  if (args.add) return;
  const dim3 blocks(kZeroBlocks, static_cast<unsigned>(args.d_w.shape[0]));
  const std::int64_t size = args.d_w.shape[1] * args.d_w.shape[2];
  zero_without_rows<<<blocks, kZeroThreads, 0, native(stream)>>>(args.offsets.as<std::int64_t>(), size, args.d_w.as<float>());
  check_launch(args.kName);
}

void forward_with_swiglu(Stream& stream, const GroupedSwigluForward& args) {
  if (args.x.dtype == DType::kBf16) {
    const GroupedSwiglu both{product_of(GroupedForm::kForward, args.x, args.w, args.gate_up, args.offsets, args.w.shape, args.kName),
                             args.row_weight.empty() ? nullptr : args.row_weight.as<float>(), args.h.data};
    if (fits_wgmma(both)) return multiply_grouped_wgmma(stream, both, args.kName);
  }
  forward(stream, {.x = args.x, .offsets = args.offsets, .w = args.w, .y = args.gate_up});
  swiglu_forward(stream, {.gate_up = args.gate_up, .row_weight = args.row_weight, .h = args.h}, args.offsets.as<std::int64_t>() + args.w.shape[0]);
}

const RegisterCuda<GroupedSwigluForward> registered_swiglu_forward{forward_with_swiglu};
const RegisterCuda<GroupedGemmForward> registered_forward{forward};
const RegisterCuda<GroupedGemmBackwardInput> registered_backward_input{backward_input};
const RegisterCuda<GroupedGemmBackwardWeight> registered_backward_weight{backward_weight};

}  // namespace
}  // namespace hadal::kernels::cuda
