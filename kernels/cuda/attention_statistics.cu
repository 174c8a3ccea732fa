#include "kernels/cuda/attention_statistics.h"

#include <cmath>

#include "kernels/cuda/check.h"
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/visit.h"

namespace hadal::kernels::cuda {
namespace {

constexpr int kThreads = 256;

// A warp per row.
template <class T>
__global__ void statistics(AttentionSizes sizes, Strided<const T> o, Strided<const T> d_o, const float* lse, float* to, std::int64_t rows) {
  const std::int64_t row = (std::int64_t{blockIdx.x} * kThreads + threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  if (row >= rows) return;
  const int padded = padded_tokens(sizes.tokens), t = static_cast<int>(row % padded);
  const int head = static_cast<int>(row / padded) % sizes.heads;
  const int sequence = static_cast<int>(row / padded / sizes.heads);
  float delta = 0, base = INFINITY;
  if (t < sizes.tokens) {
    const std::int64_t token = std::int64_t{sequence} * sizes.tokens + t;
    const T* const a = o.at(token, head);
    const T* const b = d_o.at(token, head);
    for (int i = lane; i < sizes.value_width; i += kWarp) delta += to_float(a[i]) * to_float(b[i]);
    delta = warp_sum(delta);
    const float stored = lse[token * sizes.heads + head];
    base = stored == -INFINITY ? INFINITY : stored * kLog2E;
  }
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
    statistics<T><<<blocks_of(rows * kWarp), kThreads, 0, stream>>>(sizes, strided<T>(args.o), strided<T>(args.d_o), args.lse.as<float>(),
                                                                    result.as<float>(), rows);
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
