// RMSNorm forward, bound by memory: a row is read once, into registers (rms_norm_rows.cuh); rows that do not fit are read twice.
#include "kernels/cuda/check.h"
#include "kernels/cuda/early_launch.cuh"
#include "kernels/cuda/rms_norm_rows.cuh"
#include "kernels/cuda/visit.h"
#include "kernels/rms_norm.h"

namespace hadal::kernels::cuda {
namespace {

template <class T, int RowThreads>
__global__ __launch_bounds__(kNormThreads<RowThreads>) void forward_held(NormRows shape, const T* x, const float* gain, float eps,
                                                                         T* y, float* inverse_rms) {
  constexpr int kRows = kNormThreads<RowThreads> / RowThreads, kCount = kPiece<T>;
  const int lane = static_cast<int>(threadIdx.x) % RowThreads;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kRows + threadIdx.x / RowThreads;
  let_next_kernel_come();
  await_kernel_before();
  if (row >= shape.rows) return;  // a whole warp: blocks with several rows have no barrier
  const T* const from = x + row * shape.x_stride;
  Pack<T, kCount> held[kNormPieces];
#pragma unroll
  for (int p = 0; p < kNormPieces; ++p) {
    const int at = (p * RowThreads + lane) * kCount;
    if (at < shape.width) held[p] = load_pack<kCount>(from + at);
  }
  float sum = 0;
#pragma unroll
  for (int p = 0; p < kNormPieces; ++p) {
    if ((p * RowThreads + lane) * kCount >= shape.width) continue;
    const Floats<kCount> values = floats_of(held[p]);
#pragma unroll
    for (int i = 0; i < kCount; ++i) sum += values.at[i] * values.at[i];
  }
  const float rho = 1.0f / sqrtf(row_sum<RowThreads>(sum) / static_cast<float>(shape.width) + eps);
  if (lane == 0) inverse_rms[row] = rho;
#pragma unroll
  for (int p = 0; p < kNormPieces; ++p) {
    const int at = (p * RowThreads + lane) * kCount;
    if (at >= shape.width) continue;
    Floats<kCount> values = floats_of(held[p]);
    const Floats<kCount> gains = load_floats<kCount>(gain + at);
#pragma unroll
    for (int i = 0; i < kCount; ++i) values.at[i] = gains.at[i] * (values.at[i] * rho);
    store_floats(y + row * shape.width + at, values);
  }
}

template <class T>
__global__ __launch_bounds__(kNormBlock) void forward_any(NormRows shape, const T* x, const float* gain, float eps, T* y,
                                                          float* inverse_rms) {
  const int64_t row = blockIdx.x;
  const T* const from = x + row * shape.x_stride;
  float sum = 0;
  for (int i = static_cast<int>(threadIdx.x); i < shape.width; i += kNormBlock) {
    const float value = to_float(from[i]);
    sum += value * value;
  }
  const float rho = 1.0f / sqrtf(block_sum<kNormBlock>(sum) / static_cast<float>(shape.width) + eps);
  if (threadIdx.x == 0) inverse_rms[row] = rho;
  T* const to = y + row * shape.width;
  for (int i = static_cast<int>(threadIdx.x); i < shape.width; i += kNormBlock)
    to[i] = from_float<T>(gain[i] * (to_float(from[i]) * rho));
}

void rms_norm_forward(Stream& stream, const RmsNormForward& args) {
  const NormRows shape = norm_rows_of(args.inverse_rms.numel(), args.gain.numel(), args.x_stride, 0);
  if (shape.rows == 0 || shape.width == 0) return;
  visit(args.y.dtype, [&]<class T>() {
    const auto* x = static_cast<const T*>(args.x.data);
    auto* y = static_cast<T*>(args.y.data);
    const float* gain = args.gain.as<float>();
    const auto eps = static_cast<float>(args.eps);
    const bool aligned = aligned16(x, shape.x_stride) && aligned16(y, shape.width) && aligned16(gain, 4);
    visit_row_threads<T>(shape.width, aligned, [&]<int RowThreads>() {
      if constexpr (RowThreads == 0) {
        forward_any<<<static_cast<unsigned>(shape.rows), kNormBlock, 0, native(stream)>>>(shape, x, gain, eps, y,
                                                                                          args.inverse_rms.as<float>());
      } else {
        constexpr int kRows = kNormThreads<RowThreads> / RowThreads;
        launch_early(stream, RmsNormForward::kName, forward_held<T, RowThreads>, static_cast<unsigned>((shape.rows + kRows - 1) / kRows),
                     kNormThreads<RowThreads>, 0, shape, x, gain, eps, y, args.inverse_rms.as<float>());
      }
    });
  });
  check_launch(RmsNormForward::kName);
}

const RegisterCuda<RmsNormForward> registered{rms_norm_forward};

}  // namespace
}  // namespace hadal::kernels::cuda
