// Tiles of the kernels of nsa_heads.h: 64 keys of a block, which stay, and 64 queries that chose it, one warpgroup (wgmma) for both. Tiles
// lie in shared memory as attention_products.cuh wants them: chunks of 64 columns, 128-byte rows, swizzled.
#pragma once

#include "kernels/cuda/attention_products.cuh"
#include "kernels/cuda/nsa_fragments.cuh"
#include "kernels/cuda/nsa_heads_plan.cuh"

namespace hadal::kernels::cuda {

inline constexpr int kHeadThreads = 128;
inline constexpr int kChunkBytes = kHeadTile * hopper::kChunkRowBytes;

/// Bytes of `columns` columns of a tile.
__host__ __device__ constexpr int tile_bytes(int columns) { return columns / hopper::kChunkColumns * kChunkBytes; }
/// Shared memory for tiles of so many columns together, wherever the block's memory begins.
constexpr std::size_t memory_of_tiles(int columns) { return static_cast<std::size_t>(tile_bytes(columns)) + 1024; }
__device__ inline std::uint32_t first_tile(const void* memory) { return (shared_address(memory) + 1023u) & ~1023u; }

/// Copies that this thread has waited for are seen by the tensor cores behind the next barrier.
__device__ inline void publish_copies() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

/// Partial results of heads first_head .. first_head + heads: a row for each (token, slot of its list, key tile).
struct HeadPartials {
  bf16* rows;
  float* lse;  ///< [rows], to the base 2, where the op needs it
  std::int64_t rows_of_head;
  int first_head, heads, key_tiles;

  __device__ std::int64_t row(const SelectedSizes& sizes, int head, std::int64_t token, int slot) const {
    return (head - first_head) * rows_of_head + (token * sizes.chosen + slot) * key_tiles;
  }
};

/// What a block of threads works on: grid (pieces of a group, an upper bound; heads; key tiles).
struct HeadWork {
  HeadPiece piece;
  int head, kv, key_tile, tiles, first_key;
  int num_keys;  ///< of the tile; none: there is nothing to do

  __device__ HeadWork(const SelectedSizes& sizes, const HeadPiecesView& view, const HeadPartials& to)
      : head(to.first_head + static_cast<int>(blockIdx.y)), kv(head / sizes.heads_per_key()), key_tile(static_cast<int>(blockIdx.z)), num_keys(0) {
    const int group = head / sizes.heads_per_group();
    if (static_cast<int>(blockIdx.x) >= view.counts[group]) return;
    piece = view.pieces[static_cast<std::int64_t>(group) * view.most + blockIdx.x];
    tiles = (piece.rows + kHeadTile - 1) / kHeadTile;
    first_key = piece.block * sizes.select_block + key_tile * kHeadTile;
    num_keys = min(min(sizes.select_block - key_tile * kHeadTile, kHeadTile), static_cast<int>(sizes.keys) - first_key);
  }
};

/// Keys and values of the work.
template <int kShared>
__device__ KeySource<kShared> keys_of(const SelectedInputs<bf16>& in, const HeadWork& work) {
  return {in.k, in.k_shared, work.piece.sequence * in.sizes.keys + work.first_key, work.kv, work.num_keys - 1, in.sizes.key_width};
}
__device__ inline KeySource<0> values_of(const SelectedInputs<bf16>& in, const HeadWork& work) {
  return {in.v, in.v, work.piece.sequence * in.sizes.keys + work.first_key, work.kv, work.num_keys - 1, in.sizes.value_width};
}

/// Eight threads bring 128 bytes of a row; a thread of the warpgroup has the same 16 of several rows.
__device__ inline int copied_row(int i) { return static_cast<int>(threadIdx.x) % kHeadThreads / 8 + i * (kHeadThreads / 8); }
inline constexpr int kCopiedRows = kHeadTile * 8 / kHeadThreads;

/// Piece of row copied_row(i), columns of `chunk`.
__device__ inline void copy_piece(std::uint32_t tile, int chunk, int i, const bf16* from, bool valid) {
  const int row = copied_row(i), piece = static_cast<int>(threadIdx.x) % 8;
  copy16_async(tile + chunk * kChunkBytes + row * hopper::kChunkRowBytes + (piece ^ row & 7) * 16, from + piece * 8, valid);
}

/// Starts the copies of a tile of keys or values; rows behind the last one become zero.
template <int kWidth, int kShared>
__device__ void copy_keys(std::uint32_t tile, const KeySource<kShared>& from) {
#pragma unroll
  for (int i = 0; i < kCopiedRows; ++i) {
#pragma unroll
    for (int c = 0; c < kWidth / hopper::kChunkColumns; ++c) {
      copy_piece(tile, c, i, from.at(copied_row(i), c * hopper::kChunkColumns), copied_row(i) <= from.last);
    }
  }
}

/// The queries of a piece, tile by tile: the tokens of a tile are read ahead of its rows.
class QueryGatherer {
 public:
  __device__ QueryGatherer(const SelectedSizes& sizes, const HeadPiecesView& view, const HeadWork& work)
      : lists_(view.lists), begin_(work.piece.begin), rows_(work.piece.rows), first_(work.piece.sequence * sizes.tokens), head_(work.head) {}

  __device__ void find(int tile) {
#pragma unroll
    for (int i = 0; i < kCopiedRows; ++i) {
      const int row = tile * kHeadTile + copied_row(i);
      token_[i] = row < rows_ ? lists_.token(lists_.entries[begin_ + row]) : -1;
    }
  }
  /// Starts the copies of the rows found; rows behind the last one become zero.
  template <int kWidth>
  __device__ void copy(std::uint32_t tile, const HeadRows<const bf16>& x) const {
#pragma unroll
    for (int i = 0; i < kCopiedRows; ++i) {
      const bf16* const from = x.at(first_ + max(token_[i], 0), head_);
#pragma unroll
      for (int c = 0; c < kWidth / hopper::kChunkColumns; ++c) copy_piece(tile, c, i, from + c * hopper::kChunkColumns, token_[i] >= 0);
    }
  }

 private:
  const BlockListsView& lists_;
  int begin_, rows_;
  std::int64_t first_;
  int head_, token_[kCopiedRows];
};

/// The two rows of a tile whose sums a thread of the first warpgroup holds.
struct OwnRows {
  int limit[2];           ///< last key of the tile that the row sees; -1: none, or there is no row
  std::int64_t token[2];  ///< over all sequences
  std::int64_t to[2];     ///< row of the partial results

  __device__ OwnRows(const SelectedSizes& sizes, const HeadPiecesView& view, const HeadWork& work, const HeadPartials& partials, int tile) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = tile * kHeadTile + static_cast<int>(threadIdx.x) / kWarp * 16 + static_cast<int>(threadIdx.x) % kWarp / 4 + 8 * half;
      const bool valid = row < work.piece.rows;
      const int entry = view.lists.entries[work.piece.begin + (valid ? row : 0)], t = view.lists.token(entry);
      const std::int64_t seen = sizes.query_start + t - work.first_key;
      limit[half] = valid ? static_cast<int>(seen < work.num_keys ? seen : work.num_keys - 1) : -1;
      token[half] = work.piece.sequence * sizes.tokens + t;
      to[half] = partials.row(sizes, work.head, token[half], view.lists.place(entry)) + work.key_tile;
    }
  }
};

/// d = a b^T over kWidth columns of two tiles.
template <int kWidth>
__device__ __forceinline__ void multiply_tiles(float (&d)[32], std::uint32_t a, std::uint32_t b) {
#pragma unroll
  for (int step = 0; step < kWidth / 16; ++step) {
    const std::uint32_t at = step / 4 * kChunkBytes + step % 4 * 32;
    if (step == 0) {
      hopper::multiply_first(d, hopper::rows_operand(a + at), hopper::rows_operand(b + at));
    } else {
      hopper::multiply(d, hopper::rows_operand(a + at), hopper::rows_operand(b + at));
    }
  }
}

/// d += weights * tile, 2 N columns of it.
template <int N>
__device__ __forceinline__ void add_tile(float (&d)[N], const std::uint32_t (&weights)[16], std::uint32_t tile) {
#pragma unroll
  for (int step = 0; step < kHeadTile / 16; ++step) {
    hopper::multiply_registers(d, weights + 4 * step, hopper::columns_operand(tile + step * 2048, kChunkBytes));
  }
}

/// 16-byte piece `piece` of a row of partial results holds columns partial_column(piece, 0 .. 3) and the ones beside them: what a thread has
/// of 32 columns, so that a quad writes 64 bytes in a row.
__host__ __device__ constexpr int partial_column(int piece, int word) { return piece / 4 * 32 + word * 8 + piece % 4 * 2; }

/// Row `half` of the thread's sums, times `factor`.
template <int N>
__device__ __forceinline__ void store_partial(bf16* to, const float (&d)[N], int half, float factor) {
#pragma unroll
  for (int i = 0; i < N / 16; ++i) {
    std::uint32_t words[4];
#pragma unroll
    for (int word = 0; word < 4; ++word) {
      const int at = (i * 4 + word) * 4 + 2 * half;
      words[word] = pack(d[at] * factor, d[at + 1] * factor);
    }
    *reinterpret_cast<uint4*>(to + i * 32 + threadIdx.x % 4 * 8) = make_uint4(words[0], words[1], words[2], words[3]);
  }
}

}  // namespace hadal::kernels::cuda
