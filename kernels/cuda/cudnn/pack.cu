// One thread moves 16 bytes (8 columns); the shared key's gradient is summed by one thread for 8 columns of a token.
#include "kernels/cuda/cudnn/pack.h"

#include <cuda_bf16.h>

#include "kernels/cuda/check.h"

namespace hadal::kernels::cuda::cudnn {
namespace {

constexpr int kThreads = 256;
constexpr int kVector = 8;  ///< bf16 of an access

unsigned blocks_for(std::int64_t threads) { return static_cast<unsigned>((threads + kThreads - 1) / kThreads); }

__device__ std::int64_t thread_index() { return static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x; }

template <class T>
struct Rows {
  T* data;
  std::int64_t token_stride, head_stride;
  __device__ T* at(std::int64_t token, std::int64_t head, std::int64_t column) const {
    return data + token * token_stride + head * head_stride + column;
  }
};

using Bf = __nv_bfloat16;

Rows<const Bf> rows_of(const ConstHeads& x) { return {static_cast<const Bf*>(x.data), x.token_stride, x.head_stride}; }
Rows<Bf> rows_of(const Heads& x) { return {static_cast<Bf*>(x.data), x.token_stride, x.head_stride}; }

__global__ void pack_kernel(Rows<const Bf> k, Rows<const Bf> shared, Bf* packed, std::int64_t heads, int width, int vectors, std::int64_t total) {
  const std::int64_t index = thread_index();
  if (index >= total) return;
  const int column = static_cast<int>(index % vectors) * kVector;
  const std::int64_t row = index / vectors, token = row / heads, head = row % heads;
  const Bf* const from = column < width ? k.at(token, head, column) : shared.at(token, 0, column - width);
  *reinterpret_cast<uint4*>(packed + index * kVector) = *reinterpret_cast<const uint4*>(from);
}

__global__ void unpack_kernel(const Bf* packed, Rows<Bf> d_k, std::int64_t heads, int vectors, int row_length, std::int64_t total) {
  const std::int64_t index = thread_index();
  if (index >= total) return;
  const int column = static_cast<int>(index % vectors) * kVector;
  const std::int64_t row = index / vectors;
  *reinterpret_cast<uint4*>(d_k.at(row / heads, row % heads, column)) = *reinterpret_cast<const uint4*>(packed + row * row_length + column);
}

__global__ void shared_sum_kernel(const Bf* packed, Rows<Bf> d_shared, int heads, int width, int vectors, int row_length, std::int64_t total) {
  const std::int64_t index = thread_index();
  if (index >= total) return;
  const int column = static_cast<int>(index % vectors) * kVector;
  const std::int64_t token = index / vectors;
  const Bf* const from = packed + token * heads * row_length + width + column;
  float sum[kVector] = {};
#pragma unroll 8
  for (int head = 0; head < heads; ++head) {
    const uint4 bits = *reinterpret_cast<const uint4*>(from + static_cast<std::int64_t>(head) * row_length);
    const auto* const pairs = reinterpret_cast<const __nv_bfloat162*>(&bits);
#pragma unroll
    for (int i = 0; i < kVector / 2; ++i) {
      const float2 pair = __bfloat1622float2(pairs[i]);
      sum[2 * i] += pair.x;
      sum[2 * i + 1] += pair.y;
    }
  }
  uint4 bits;
  auto* const pairs = reinterpret_cast<__nv_bfloat162*>(&bits);
#pragma unroll
  for (int i = 0; i < kVector / 2; ++i) pairs[i] = __floats2bfloat162_rn(sum[2 * i], sum[2 * i + 1]);
  *reinterpret_cast<uint4*>(d_shared.at(token, 0, column)) = bits;
}

/// to [batch, columns, rows] = from [batch, rows, columns]
__global__ void transpose_kernel(const float* from, float* to, std::int64_t rows, std::int64_t columns, std::int64_t total) {
  const std::int64_t index = thread_index();
  if (index >= total) return;
  const std::int64_t row = index % rows, column = index / rows % columns, matrix = index / rows / columns;
  to[index] = from[(matrix * rows + row) * columns + column];
}

void transpose(cudaStream_t stream, const float* from, float* to, std::int64_t batch, std::int64_t rows, std::int64_t columns) {
  const std::int64_t total = batch * rows * columns;
  transpose_kernel<<<blocks_for(total), kThreads, 0, stream>>>(from, to, rows, columns, total);
  check_launch("cuDNN attention: statistics");
}

}  // namespace

void pack_keys(cudaStream_t stream, const ConstHeads& k, const ConstHeads& k_shared, void* packed) {
  const auto vectors = static_cast<int>((k.width + k_shared.width) / kVector);
  const std::int64_t total = k.tokens * k.heads * vectors;
  pack_kernel<<<blocks_for(total), kThreads, 0, stream>>>(rows_of(k), rows_of(k_shared), static_cast<Bf*>(packed), k.heads,
                                                          static_cast<int>(k.width), vectors, total);
  check_launch("cuDNN attention: keys");
}

void unpack_key_gradients(cudaStream_t stream, const void* packed, const Heads& d_k, const Heads& d_k_shared) {
  const auto row_length = static_cast<int>(d_k.width + d_k_shared.width);
  const auto own = static_cast<int>(d_k.width / kVector), shared = static_cast<int>(d_k_shared.width / kVector);
  const auto* const from = static_cast<const Bf*>(packed);
  const std::int64_t total = d_k.tokens * d_k.heads * own, sums = d_k.tokens * shared;
  unpack_kernel<<<blocks_for(total), kThreads, 0, stream>>>(from, rows_of(d_k), d_k.heads, own, row_length, total);
  check_launch("cuDNN attention: key gradients");
  shared_sum_kernel<<<blocks_for(sums), kThreads, 0, stream>>>(from, rows_of(d_k_shared), static_cast<int>(d_k.heads), static_cast<int>(d_k.width),
                                                               shared, row_length, sums);
  check_launch("cuDNN attention: gradients of the shared key");
}

void statistics_by_head(cudaStream_t stream, const float* from, float* to, std::int64_t batch, std::int64_t rows, std::int64_t heads) {
  transpose(stream, from, to, batch, rows, heads);
}

void statistics_by_row(cudaStream_t stream, const float* from, float* to, std::int64_t batch, std::int64_t rows, std::int64_t heads) {
  transpose(stream, from, to, batch, heads, rows);
}

}  // namespace hadal::kernels::cuda::cudnn
