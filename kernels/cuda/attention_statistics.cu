#include "kernels/cuda/attention_statistics.h"

#include <cmath>

#include "kernels/cuda/check.h"
#include "kernels/cuda/floats.cuh"
#include "kernels/cuda/visit.h"

namespace hadal::kernels::cuda {
namespace {

constexpr int kThreads = 256;

constexpr int kLanes = 16;  ///< threads of a row

/// A row for kLanes threads, N elements at once. Few registers, so that many rows are under way.
template <class T, int N>
__global__ void __launch_bounds__(kThreads, 6)
    statistics(AttentionSizes sizes, Strided<const T> o, Strided<const T> d_o, const float* lse, float* to, std::int64_t rows) {
  const std::int64_t row = (std::int64_t{blockIdx.x} * kThreads + threadIdx.x) / kLanes;
  const int lane = static_cast<int>(threadIdx.x) % kLanes, padded = padded_tokens(sizes.tokens), t = static_cast<int>(row % padded);
  const int head = static_cast<int>(row / padded % sizes.heads), sequence = static_cast<int>(row / padded / sizes.heads);
  const std::int64_t token = std::int64_t{sequence} * sizes.tokens + t;
  const bool there = row < rows && t < sizes.tokens;
  float delta = 0;
  if (there) {
    const T *const a = o.at(token, head), *const b = d_o.at(token, head);
#pragma unroll 1
    for (int i = lane * N; i < sizes.value_width; i += kLanes * N) {
      const Floats<N> x = load_floats<N>(a + i), y = load_floats<N>(b + i);
#pragma unroll
      for (int n = 0; n < N; ++n) delta += x.at[n] * y.at[n];
    }
  }
#pragma unroll
  for (int other = kLanes / 2; other > 0; other /= 2) delta += __shfl_xor_sync(0xffffffffu, delta, other);
  if (row < rows && lane == 0) {
    const float stored = there ? lse[token * sizes.heads + head] : -INFINITY;
    float* const at = to + statistics_at(sizes, sequence, head, t);
    at[0] = stored == -INFINITY ? INFINITY : stored * kLog2E;
    at[kStatisticsTile] = delta;
  }
}

template <class T>
__global__ void sum_chunks(const float* partial, int chunks, Strided<T> to, std::int64_t rows, int width, bool add) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= rows * width) return;
  T* const at = to.at(i / width, 0) + i % width;
  float sum = add ? to_float(*at) : 0.0f;
  for (int chunk = 0; chunk < chunks; ++chunk) sum += partial[chunk * rows * width + i];
  *at = from_float<T>(sum);
}

unsigned blocks_of(std::int64_t threads) { return static_cast<unsigned>((threads + kThreads - 1) / kThreads); }

}  // namespace

Tensor row_statistics(cudaStream_t stream, Device device, const FlashAttentionBackward& args) {
  const AttentionSizes sizes(args);
  const std::int64_t rows = std::int64_t{sizes.batch} * sizes.heads * padded_tokens(sizes.tokens);
  Tensor result = Tensor::empty({2, rows}, DType::kF32, device);
  if (rows == 0) return result;
  visit(args.q.dtype, [&]<class T>() {
    const auto start = [&]<int N>() {
      statistics<T, N><<<blocks_of(rows * kLanes), kThreads, 0, stream>>>(sizes, strided<T>(args.o), strided<T>(args.d_o), args.lse.as<float>(),
                                                                         result.as<float>(), rows);
    };
    const auto aligned = [&](const ConstHeads& x) {
      const auto* const data = static_cast<const T*>(x.data);
      return aligned16(data, x.width) && aligned16(data, x.token_stride) && aligned16(data, x.head_stride);
    };
    aligned(args.o) && aligned(args.d_o) ? start.template operator()<kPiece<T>>() : start.template operator()<1>();
  });
  check_launch("attention statistics");
  return result;
}

void sum_shared_key(cudaStream_t stream, const float* partial, int chunks, const Heads& to, bool add) {
  const std::int64_t elements = to.tokens * to.width;
  if (elements == 0) return;
  visit(to.dtype, [&]<class T>() {
    sum_chunks<T><<<blocks_of(elements), kThreads, 0, stream>>>(partial, chunks, strided<T>(to), to.tokens, static_cast<int>(to.width), add);
  });
  check_launch("gradient of the shared key");
}

}  // namespace hadal::kernels::cuda
