#include "kernels/cuda/attention_statistics.h"

#include <cmath>

#include "kernels/cuda/check.h"
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/visit.h"

namespace hadal::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kLanes = 16;  ///< threads of a row
constexpr int kHeads = 4;   ///< of a block that takes short rows
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

__device__ float dot(uint32_t a, uint32_t b, float sum) {
  const float2 x = __bfloat1622float2(reinterpret_cast<const __nv_bfloat162&>(a)), y = __bfloat1622float2(reinterpret_cast<const __nv_bfloat162&>(b));
  return sum + x.x * y.x + x.y * y.y;
}

/// The same over bf16 rows of at most 16 bytes a thread, kHeads heads a block, whose loads are under way together.
__global__ void short_statistics(const __grid_constant__ AttentionSizes sizes, Strided<const __nv_bfloat16> o, Strided<const __nv_bfloat16> d_o,
                                 const float* lse, float* to) {
  const int groups = (sizes.heads + kHeads - 1) / kHeads, first = static_cast<int>(blockIdx.x) % groups * kHeads;
  const int tile = static_cast<int>(blockIdx.x) / groups, tiles = padded_tokens(sizes.tokens) / kStatisticsTile, sequence = tile / tiles;
  const int lane = static_cast<int>(threadIdx.x) % kLanes, t = tile % tiles * kStatisticsTile + static_cast<int>(threadIdx.x) / kLanes;
  const std::int64_t token = std::int64_t{sequence} * sizes.tokens + t;
  const bool within = t < sizes.tokens && lane * 8 < sizes.value_width;
  uint4 x[kHeads], y[kHeads];
#pragma unroll
  for (int n = 0; n < kHeads; ++n) {
    const bool reads = within && first + n < sizes.heads;
    x[n] = reads ? *reinterpret_cast<const uint4*>(o.at(token, first + n) + lane * 8) : uint4{0, 0, 0, 0};
    y[n] = reads ? *reinterpret_cast<const uint4*>(d_o.at(token, first + n) + lane * 8) : uint4{0, 0, 0, 0};
  }
  const int head = first + lane;  // whose statistics this lane writes
  const bool writes = lane < kHeads && head < sizes.heads;
  const float stored = writes && t < sizes.tokens ? lse[token * sizes.heads + head] : -INFINITY;
  float delta = 0;
#pragma unroll
  for (int n = 0; n < kHeads; ++n) {
    float sum = dot(x[n].w, y[n].w, dot(x[n].z, y[n].z, dot(x[n].y, y[n].y, dot(x[n].x, y[n].x, 0.0f))));
#pragma unroll
    for (int other = kLanes / 2; other > 0; other /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, other);
    if (lane == n) delta = sum;
  }
  if (writes) {
    float* const at = to + statistics_at(sizes, sequence, head, t);
    at[0] = stored == -INFINITY ? INFINITY : stored * kLog2E;
    at[kStatisticsTile] = delta;
  }
}

/// Every row can be read in pieces of 16 bytes, one a thread.
bool is_short(const ConstHeads& x) {
  const bool pieces = x.width % 8 == 0 && x.token_stride % 8 == 0 && (x.heads == 1 || x.head_stride % 8 == 0);
  return x.dtype == DType::kBf16 && x.width <= kLanes * 8 && pieces && reinterpret_cast<std::uintptr_t>(x.data) % 16 == 0;
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
  if (is_short(args.o) && is_short(args.d_o)) {
    const std::int64_t groups = (sizes.heads + kHeads - 1) / kHeads, tiles = rows / sizes.heads / kStatisticsTile;
    short_statistics<<<static_cast<unsigned>(groups * tiles), kThreads, 0, stream>>>(
        sizes, strided<__nv_bfloat16>(args.o), strided<__nv_bfloat16>(args.d_o), args.lse.as<float>(), result.as<float>());
    check_launch("attention statistics");
    return result;
  }
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
