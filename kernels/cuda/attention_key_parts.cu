#include "kernels/cuda/attention_key_parts.h"

#include <cuda_bf16.h>

#include "kernels/cuda/check.h"

namespace hadal::kernels::cuda {
namespace {

using bf16 = __nv_bfloat16;

/// One thread sums four columns of a row.
__global__ void sum_parts(const __grid_constant__ AttentionSizes sizes, const KeyParts parts, const float4* partial, Strided<bf16> d_k,
                          Strided<bf16> d_v, float* d_shared, bool add, int quads, std::int64_t rows) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= rows * quads) return;
  const int column = static_cast<int>(i % quads) * 4, kv = static_cast<int>(i / quads % sizes.key_heads);
  const std::int64_t token = i / quads / sizes.key_heads;
  const int key = static_cast<int>(token % sizes.keys) / kKeyTile * kKeyTile;
  const TileSpan seen = parts.seen(sizes, key);
  const int first = seen.first / parts.range_tiles, last = (seen.last + parts.range_tiles - 1) / parts.range_tiles;
  float4 sum{0, 0, 0, 0};
#pragma unroll 8
  for (int part = first * parts.heads; part < last * parts.heads; ++part) {
    const float4 x = partial[part * rows * quads + i];
    sum.x += x.x;
    sum.y += x.y;
    sum.z += x.z;
    sum.w += x.w;
  }
  const int value = column - sizes.key_width, shared = value - sizes.value_width;
  if (shared >= 0) {
    *reinterpret_cast<float4*>(d_shared + (kv * (rows / sizes.key_heads) + token) * sizes.shared_width + shared) = sum;
    return;
  }
  auto* const to = reinterpret_cast<__nv_bfloat162*>(value >= 0 ? d_v.at(token, kv) + value : d_k.at(token, kv) + column);
  if (add) {
    const float2 low = __bfloat1622float2(to[0]), high = __bfloat1622float2(to[1]);
    sum = {sum.x + low.x, sum.y + low.y, sum.z + high.x, sum.w + high.y};
  }
  to[0] = __floats2bfloat162_rn(sum.x, sum.y);
  to[1] = __floats2bfloat162_rn(sum.z, sum.w);
}

}  // namespace

KeyParts key_parts(const AttentionSizes& sizes, int tile_queries) {
  const KeyCut cut = cut_keys({.batch = sizes.batch,
                               .tokens = sizes.tokens,
                               .keys = sizes.keys,
                               .heads = sizes.heads,
                               .key_heads = sizes.key_heads,
                               .columns = partial_width(sizes),
                               .query_start = sizes.query_start,
                               .window = sizes.blocks ? 0 : sizes.window,
                               .block_length = sizes.blocks ? sizes.block_length : 0,
                               .block_stride = sizes.blocks ? sizes.block_stride : 0},
                              tile_queries);
  return {static_cast<int>(cut.heads), static_cast<int>(cut.ranges), static_cast<int>(cut.range_tiles), tile_queries};
}

void sum_key_parts(cudaStream_t stream, const FlashAttentionBackward& args, const KeyParts& parts, const float* partial, float* shared_sums) {
  constexpr int kThreads = 128;
  const AttentionSizes sizes(args);
  const std::int64_t rows = std::int64_t{sizes.batch} * sizes.keys * sizes.key_heads;
  const int quads = partial_width(sizes) / 4;
  const std::int64_t blocks = (rows * quads + kThreads - 1) / kThreads;
  sum_parts<<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(sizes, parts, reinterpret_cast<const float4*>(partial), strided<bf16>(args.d_k),
                                                                   strided<bf16>(args.d_v), shared_sums, args.add_to_keys, quads, rows);
  check_launch(args.kName);
}

}  // namespace hadal::kernels::cuda
