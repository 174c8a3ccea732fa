// RMSNorm backward, bound by memory. A multiprocessor has one block, whose groups of threads have a row each and go over rows that lie a
// grid apart (so that all blocks together read memory in order). A thread keeps its part of the gain and of the gain's gradient in
// registers until the end; the next row comes into shared memory while one is worked on. The groups' sums are added in the block, the
// blocks' lie in a workspace and are added in order by a second kernel. They depend on T and d alone.
#include <cuda_pipeline.h>

#include "kernels/cuda/check.h"
#include "kernels/cuda/column_sums.h"
#include "kernels/cuda/early_launch.cuh"
#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/rms_norm_rows.cuh"
#include "kernels/cuda/visit.h"
#include "kernels/rms_norm.h"

namespace hadal::kernels::cuda {
namespace {

// Blocks are at most those that 132 multiprocessors (a Hopper's) hold at the same time, on any device.
constexpr int64_t kMultiprocessors = 132;

/// Of a block, with 64 registers each.
constexpr int kThreads = 1024;
/// Blocks of the kernel for any rows on a multiprocessor.
constexpr int kResidentAny = 4;

/// Sum over a group's threads, on each of them. `turn` alternates: sums of a turn are read until the next turn's barrier.
template <int RowThreads>
__device__ float group_sum(float x, int group, int turn) {
  constexpr int kWarps = RowThreads / kWarp, kGroups = kThreads / RowThreads;
  __shared__ float parts[2][kGroups][kWarps];
  x = warp_sum(x);
  if constexpr (kWarps == 1) return x;
  if (threadIdx.x % kWarp == 0) parts[turn][group][threadIdx.x / kWarp % kWarps] = x;
  sync_threads(1 + group, RowThreads);
  float sum = parts[turn][group][0];
#pragma unroll
  for (int warp = 1; warp < kWarps; ++warp) sum += parts[turn][group][warp];
  return sum;
}

template <class T>
struct BackwardPointers {
  const T* x;
  const float* gain;
  const float* inverse_rms;
  const T* d_y;
  const T* d_residual;
  T* d_x;
  float* partials;  ///< [blocks, d]
};

/// What one thread has of a row in shared memory while the row before is worked on: written and read by this thread alone, so
/// that its own wait is all the ordering there is. Slots of neighbouring threads are neighbours.
template <class T>
struct Stage {
  Pack<T, kPiece<T>> x[kNormPieces][kThreads], d_y[kNormPieces][kThreads], d_residual[kNormPieces][kThreads];
};
constexpr int kStages = 2;

template <class T, int RowThreads>
__device__ void fetch(const NormRows& shape, const BackwardPointers<T>& p, int64_t row, int lane, Stage<T>& stage) {
#pragma unroll
  for (int k = 0; k < kNormPieces; ++k) {
    const int at = (k * RowThreads + lane) * kPiece<T>;
    if (at >= shape.width) continue;
    __pipeline_memcpy_async(&stage.x[k][threadIdx.x], p.x + row * shape.x_stride + at, 16);
    __pipeline_memcpy_async(&stage.d_y[k][threadIdx.x], p.d_y + row * shape.width + at, 16);
    if (p.d_residual != nullptr)
      __pipeline_memcpy_async(&stage.d_residual[k][threadIdx.x], p.d_residual + row * shape.width + at, 16);
  }
}

template <class T, int RowThreads>
__global__ __launch_bounds__(kThreads, 1) void backward_held(NormRows shape, BackwardPointers<T> p) {
  constexpr int kRows = kThreads / RowThreads, kCount = kPiece<T>;
  extern __shared__ __align__(16) unsigned char shared[];
  auto* const stages = reinterpret_cast<Stage<T>*>(shared);
  const int lane = static_cast<int>(threadIdx.x) % RowThreads, mine = static_cast<int>(threadIdx.x) / RowThreads;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kRows + mine, step = static_cast<int64_t>(gridDim.x) * kRows;
  let_next_kernel_come();
  await_kernel_before();
  Floats<kCount> gain[kNormPieces], d_gain[kNormPieces] = {};
#pragma unroll
  for (int k = 0; k < kNormPieces; ++k) {
    const int at = (k * RowThreads + lane) * kCount;
    if (at < shape.width) gain[k] = load_floats<kCount>(p.gain + at);
  }
  int current = 0;
  if (first < shape.rows) fetch<T, RowThreads>(shape, p, first, lane, stages[0]);
  __pipeline_commit();
  for (int64_t row = first; row < shape.rows; row += step) {
    const auto& stage = stages[current];
    current = 1 - current;
    if (row + step < shape.rows) fetch<T, RowThreads>(shape, p, row + step, lane, stages[current]);
    __pipeline_commit();
    const float rho = p.inverse_rms[row];
    __pipeline_wait_prior(kStages - 1);
    float sum = 0;
#pragma unroll
    for (int k = 0; k < kNormPieces; ++k) {
      if ((k * RowThreads + lane) * kCount >= shape.width) continue;
      const Floats<kCount> x = floats_of(stage.x[k][threadIdx.x]), d_y = floats_of(stage.d_y[k][threadIdx.x]);
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        const float product = d_y.at[i] * x.at[i];
        sum += product * gain[k].at[i];
        d_gain[k].at[i] += product * rho;
      }
    }
    const float pull = rho * rho * rho * group_sum<RowThreads>(sum, mine, current) / static_cast<float>(shape.width);
#pragma unroll
    for (int k = 0; k < kNormPieces; ++k) {
      const int at = (k * RowThreads + lane) * kCount;
      if (at >= shape.width) continue;
      const Floats<kCount> x = floats_of(stage.x[k][threadIdx.x]), d_y = floats_of(stage.d_y[k][threadIdx.x]);
      Floats<kCount> d_x{};
      if (p.d_residual != nullptr) d_x = floats_of(stage.d_residual[k][threadIdx.x]);
#pragma unroll
      for (int i = 0; i < kCount; ++i) d_x.at[i] += gain[k].at[i] * d_y.at[i] * rho - x.at[i] * pull;
      store_floats(p.d_x + row * shape.d_x_stride + at, d_x);
    }
  }
  float* const partial = p.partials + blockIdx.x * static_cast<int64_t>(shape.width);
  if constexpr (kRows == 1) {
#pragma unroll
    for (int k = 0; k < kNormPieces; ++k) {
      const int at = (k * RowThreads + lane) * kCount;
      if (at < shape.width) store_floats(partial + at, d_gain[k]);
    }
  } else {
    constexpr int kWidth = RowThreads * kNormPieces * kCount;  // at least that of a row
    auto* const sums = reinterpret_cast<float*>(shared);       // [kRows, kWidth]
    static_assert(kRows * kWidth * sizeof(float) <= sizeof(*stages));
    __syncthreads();  // no group reads its stages any more
#pragma unroll
    for (int k = 0; k < kNormPieces; ++k) store_floats(sums + mine * kWidth + (k * RowThreads + lane) * kCount, d_gain[k]);
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < shape.width; i += kThreads) {
      float sum = sums[i];
#pragma unroll
      for (int r = 1; r < kRows; ++r) sum += sums[r * kWidth + i];
      partial[i] = sum;
    }
  }
}

template <class T>
__global__ __launch_bounds__(kNormBlock) void backward_any(NormRows shape, BackwardPointers<T> p) {
  float* const partial = p.partials + blockIdx.x * static_cast<int64_t>(shape.width);
  for (int64_t row = blockIdx.x; row < shape.rows; row += gridDim.x) {
    const T* const x = p.x + row * shape.x_stride;
    const T* const d_y = p.d_y + row * shape.width;
    const T* const residual = p.d_residual == nullptr ? nullptr : p.d_residual + row * shape.width;
    T* const d_x = p.d_x + row * shape.d_x_stride;
    const float rho = p.inverse_rms[row];
    float sum = 0;
    for (int i = static_cast<int>(threadIdx.x); i < shape.width; i += kNormBlock) {
      const float product = to_float(d_y[i]) * to_float(x[i]);
      sum += product * p.gain[i];
      partial[i] = (row == blockIdx.x ? 0.0f : partial[i]) + product * rho;
    }
    const float pull = rho * rho * rho * block_sum<kNormBlock>(sum) / static_cast<float>(shape.width);
    for (int i = static_cast<int>(threadIdx.x); i < shape.width; i += kNormBlock) {
      const float rest = residual == nullptr ? 0.0f : to_float(residual[i]);
      d_x[i] = from_float<T>(rest + (p.gain[i] * to_float(d_y[i]) * rho - to_float(x[i]) * pull));
    }
  }
}

void rms_norm_backward(Stream& stream, const RmsNormBackward& args) {
  const NormRows shape = norm_rows_of(args.inverse_rms.numel(), args.gain.numel(), args.x_stride, args.d_x_stride);
  if (shape.rows == 0 || shape.width == 0) return;
  visit(args.d_y.dtype, [&]<class T>() {
    BackwardPointers<T> p{static_cast<const T*>(args.x.data),
                          args.gain.as<float>(),
                          args.inverse_rms.as<float>(),
                          static_cast<const T*>(args.d_y.data),
                          nullptr,
                          static_cast<T*>(args.d_x.data),
                          nullptr};
    if (!args.d_residual.empty()) p.d_residual = static_cast<const T*>(args.d_residual.data);
    const bool aligned = aligned16(p.x, shape.x_stride) && aligned16(p.d_y, shape.width) && aligned16(p.d_x, shape.d_x_stride) &&
                         aligned16(p.d_residual, shape.width) && aligned16(p.gain, 4);
    visit_row_threads<T>(shape.width, aligned, [&]<int RowThreads>() {
      const int64_t most = kMultiprocessors * (RowThreads == 0 ? kResidentAny : 1);
      constexpr int64_t kRows = RowThreads == 0 ? 1 : kThreads / std::max(RowThreads, 1);
      // As few blocks as have the same most rows.
      const int64_t turns = (shape.rows + kRows * most - 1) / (kRows * most),
                    blocks = (shape.rows + kRows * turns - 1) / (kRows * turns);
      Tensor partials = Tensor::empty({blocks, shape.width}, DType::kF32, stream.device());
      p.partials = partials.as<float>();
      if constexpr (RowThreads == 0) {
        backward_any<<<static_cast<unsigned>(blocks), kNormBlock, 0, native(stream)>>>(shape, p);
      } else {
        constexpr std::size_t kBytes = kStages * sizeof(Stage<T>);
        allow_shared_memory(backward_held<T, RowThreads>, kBytes + kDeclaredShared, RmsNormBackward::kName);
        launch_early(stream, RmsNormBackward::kName, backward_held<T, RowThreads>, static_cast<unsigned>(blocks), kThreads, kBytes, shape, p);
      }
      add_column_sums(stream, RmsNormBackward::kName, p.partials, blocks, shape.width, args.d_gain.as<float>());
    });
  });
  check_launch(RmsNormBackward::kName);
}

const RegisterCuda<RmsNormBackward> registered{rms_norm_backward};

}  // namespace
}  // namespace hadal::kernels::cuda
