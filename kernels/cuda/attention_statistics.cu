#include "kernels/cuda/attention_statistics.h"

#include <cmath>

#include "kernels/cuda/check.h"
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/visit.h"

namespace hadal::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kLanes = 16;  ///< threads of a row
static_assert(kThreads == kLanes * kStatisticsTile);

/// The thread's share of <a, b>.
template <class T>
__device__ float share(const T* a, const T* b, int width, int lane) {
  float sum = 0;
  constexpr int kCount = Vec16<T>::kCount;
  if (aligned16(a, width) && aligned16(b, width)) {
    for (int i = lane * kCount; i < width; i += kLanes * kCount) {
      const Vec16<T> x = load16(a + i), y = load16(b + i);
#pragma unroll
      for (int n = 0; n < kCount; ++n) sum += to_float(x.at[n]) * to_float(y.at[n]);
    }
  } else {
    for (int i = lane; i < width; i += kLanes) sum += to_float(a[i]) * to_float(b[i]);
  }
  return sum;
}

/// A block takes the 16 queries of a tile of one head; blocks next to each other take next heads, whose rows lie side by side.
template <class T>
__global__ void statistics(const __grid_constant__ AttentionSizes sizes, Strided<const T> o, Strided<const T> d_o, const float* lse, float* to) {
  const int head = static_cast<int>(blockIdx.x) % sizes.heads, tile = static_cast<int>(blockIdx.x) / sizes.heads;
  const int tiles = padded_tokens(sizes.tokens) / kStatisticsTile, sequence = tile / tiles;
  const int lane = static_cast<int>(threadIdx.x) % kLanes, t = tile % tiles * kStatisticsTile + static_cast<int>(threadIdx.x) / kLanes;
  float delta = 0, base = INFINITY;
  if (t < sizes.tokens) {
    const std::int64_t token = std::int64_t{sequence} * sizes.tokens + t;
    delta = share(o.at(token, head), d_o.at(token, head), sizes.value_width, lane);
    const float stored = lse[token * sizes.heads + head];
    base = stored == -INFINITY ? INFINITY : stored * kLog2E;
  }
#pragma unroll
  for (int other = kLanes / 2; other > 0; other /= 2) delta += __shfl_xor_sync(0xffffffffu, delta, other);
  if (lane == 0) {
    float* const at = to + statistics_at(sizes, sequence, head, t);
    at[0] = base;
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
    statistics<T><<<blocks_of(rows * kLanes), kThreads, 0, stream>>>(sizes, strided<T>(args.o), strided<T>(args.d_o), args.lse.as<float>(),
                                                                    result.as<float>());
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
