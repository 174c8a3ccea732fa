// Gradients of few keys under many queries (NSA's pooled keys, one key head of many heads): a block for every 128 keys would leave most
// multiprocessors idle, so that the queries of such a block are cut into parts, by head and by range. Parts leave sums in f32, which are
// added up in their order: the same bits in every run, and on every card, since the cut follows from the sizes alone.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/attention_params.h"
#include "kernels/key_cut.h"

namespace hadal::kernels::cuda {

/// Tiles [first, last) of queries; none where the first is not below the last.
struct TileSpan {
  int first, last;
};

/// Part p takes range p / heads of the query tiles and share p % heads of the group's heads.
struct KeyParts {
  int heads = 1;         ///< shares of a group's heads
  int ranges = 1;        ///< of query tiles
  int range_tiles = 0;   ///< of a range
  int tile_queries = 0;  ///< of a tile

  __host__ __device__ int count() const { return heads * ranges; }
  __host__ __device__ int first_head(int share, int group) const { return share * group / heads; }
  /// Query tiles that see one of the keys [key, key + kKeyTile).
  __host__ __device__ TileSpan seen(const AttentionSizes& sizes, int key) const {
    const int last_key = (key + kKeyTile < sizes.keys ? key + kKeyTile : sizes.keys) - 1;
    const int first = sizes.first_query(key), last = sizes.last_query(last_key);
    return first < last ? TileSpan{first / tile_queries, (last + tile_queries - 1) / tile_queries} : TileSpan{0, 0};
  }
  /// Those of them in a range.
  __host__ __device__ TileSpan seen_in(const TileSpan& seen, int range) const {
    const int first = range * range_tiles, last = first + range_tiles;
    return {first < seen.first ? seen.first : first, last < seen.last ? last : seen.last};
  }
};

/// key_cut.h's.
KeyParts key_parts(const AttentionSizes& sizes, int tile_queries);

/// Columns of a row of partial sums: d_k, d_v, d_k_shared.
inline int partial_width(const AttentionSizes& sizes) { return sizes.key_width + sizes.value_width + sizes.shared_width; }

/// Sums of `partial` f32 [parts, B * Sk, Hk, partial_width] over the parts that saw a key, to d_k and d_v (added where args says so) and
/// to `shared_sums` f32 [Hk, B * Sk, ws].
void sum_key_parts(cudaStream_t stream, const FlashAttentionBackward& args, const KeyParts& parts, const float* partial, float* shared_sums);

}  // namespace hadal::kernels::cuda
