#include "kernels/cuda/attention_key_parts.h"

#include <cuda_bf16.h>

#include <algorithm>
#include <functional>
#include <numeric>
#include <vector>

#include "kernels/cuda/check.h"

namespace hadal::kernels::cuda {
namespace {

using bf16 = __nv_bfloat16;

// An estimate's unit is the time in which a block multiplies a tile of queries, about 1.4 us.
constexpr int kMultiprocessors = 132;   ///< of an H100 or H200; no property of the card at hand, so that the cut is the same on any
constexpr int kStartTiles = 3;          ///< a block's first copies and its stores
constexpr int kSumTiles = 4;            ///< the launch that sums
constexpr double kBytesPerTile = 3.5e6; ///< moved by the card meanwhile

struct Estimate {
  double time, least;  ///< of this cut, and of any cut into no fewer parts
};

Estimate estimate(const AttentionSizes& sizes, const KeyParts& parts) {
  std::vector<int> walks;  // query tiles of a block, for each kind of block
  for (int key = 0; key < sizes.keys; key += kKeyTile) {
    const TileSpan seen = parts.seen(sizes, key);
    for (int range = 0; range < parts.ranges; ++range) {
      const TileSpan span = parts.seen_in(seen, range);
      if (span.first < span.last) walks.push_back(span.last - span.first);
    }
  }
  std::ranges::sort(walks, std::greater<>());
  const std::int64_t alike = std::int64_t{sizes.batch} * sizes.key_heads * parts.heads, blocks = alike * static_cast<std::int64_t>(walks.size());
  const int heads = (sizes.group + parts.heads - 1) / parts.heads;
  const double tiles = std::accumulate(walks.begin(), walks.end(), 0.0) * sizes.batch * sizes.heads;
  const double filled = (tiles + static_cast<double>(blocks) * kStartTiles) / kMultiprocessors;
  double longest = filled;
  for (std::int64_t round = 0; round * kMultiprocessors < blocks; ++round) {  // so many heavier blocks and one: somebody gets round + 1
    const int walk = walks[static_cast<std::size_t>(round * kMultiprocessors / alike)];
    longest = std::max(longest, static_cast<double>((round + 1) * (walk * heads + kStartTiles)));
  }
  const double rows = static_cast<double>(parts.count()) * sizes.batch * sizes.keys * sizes.key_heads;
  const double sums = parts.count() == 1 ? 0 : kSumTiles + 2 * sizeof(float) * rows * partial_width(sizes) / kBytesPerTile;
  return {longest + sums, filled + sums};
}

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
  const int tiles = std::max(1, (sizes.tokens + tile_queries - 1) / tile_queries);
  KeyParts best;
  double best_time = 0;
  for (int count = 1; count <= sizes.group * tiles; count *= 2) {
    KeyParts parts{.heads = std::min(count, sizes.group), .ranges = 1, .range_tiles = tiles, .tile_queries = tile_queries};
    parts.range_tiles = (tiles * parts.heads + count - 1) / count;
    parts.ranges = (tiles + parts.range_tiles - 1) / parts.range_tiles;
    const Estimate found = estimate(sizes, parts);
    if (count == 1 || found.time < best_time) {
      best = parts;
      best_time = found.time;
    }
    if (found.least >= best_time) break;
  }
  return best;
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
