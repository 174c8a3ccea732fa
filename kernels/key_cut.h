// How the CUDA gradients of few keys under many queries (NSA's pooled keys, one key head of many heads) are cut into parts, whose sums in
// f32 are held at the same time: a function of sizes alone, so that the sums are the same in every run and on every card, and `hadal plan`
// knows their memory.
#pragma once

#include <cstdint>

namespace hadal::kernels {

inline constexpr int kKeyTile = 128;  ///< keys of a block

/// Queries of a tile, for tiles of `chunks` chunks of 64 columns: k, k_shared and v, two each of k and v where one is wider than 64.
constexpr int key_gradient_queries(int chunks) { return chunks == 5 ? 48 : 64; }
constexpr int key_gradient_chunks(std::int64_t key_width, std::int64_t shared_width, std::int64_t value_width) {
  return (key_width > 64 || value_width > 64 ? 4 : 2) + (shared_width > 0 ? 1 : 0);
}

/// An attention (flash_attention.h); tokens and keys of one sequence.
struct KeyCutShape {
  std::int64_t batch, tokens, keys, heads, key_heads;
  std::int64_t columns;  ///< of a row of partial sums: d_k, d_v, d_k_shared
  std::int64_t query_start;
  std::int64_t window;                      ///< 0: no window
  std::int64_t block_length, block_stride;  ///< 0, 0: keys are tokens
  /// Key `key` is seen by queries [first_query(key), last_query(key)); empty where the first is not below the last.
  std::int64_t first_query(std::int64_t key) const;
  std::int64_t last_query(std::int64_t key) const;
};

/// Part p takes range p / heads of the query tiles and share p % heads of a group's heads.
struct KeyCut {
  std::int64_t heads = 1;        ///< shares of a group's heads
  std::int64_t ranges = 1;       ///< of query tiles
  std::int64_t range_tiles = 0;  ///< of a range

  std::int64_t count() const { return heads * ranges; }
};

/// The cut that ends first by a count of tiles; one part where the blocks fill the card anyway.
KeyCut cut_keys(const KeyCutShape& shape, std::int64_t tile_queries);

}  // namespace hadal::kernels
