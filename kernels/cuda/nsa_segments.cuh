// Heads that share both a key head and a selection: what one tile of rows may hold on tensor cores.
#pragma once

#include "kernels/cuda/nsa_mma.cuh"
#include "kernels/cuda/nsa_views.cuh"

namespace hadal::kernels::cuda {

inline constexpr int kTileRows = 16;

/// Segments of `size` consecutive heads; none cuts a group or the heads of a key.
struct HeadSegments {
  int size, count;

  static bool possible(const SelectedSizes& sizes) {
    const int a = sizes.heads_per_key(), b = sizes.heads_per_group();
    return a % b == 0 || b % a == 0;
  }
  explicit HeadSegments(const SelectedSizes& sizes)
      : size(sizes.heads_per_key() < sizes.heads_per_group() ? sizes.heads_per_key() : sizes.heads_per_group()), count(sizes.heads / size) {}
  __host__ __device__ int tiles() const { return (size + kTileRows - 1) / kTileRows; }
  /// Tokens whose rows fill a tile.
  __host__ __device__ int tokens_of_tile() const { return size < kTileRows && kTileRows % size == 0 ? kTileRows / size : 1; }
};

/// The rows (token, head) of one tile: up to 16 heads of a token, or all heads of a segment of several tokens. Rows past the last one
/// repeat it.
struct TileRows {
  std::int64_t sequence, first_token;  ///< first_token counts over all sequences
  int tokens, per_token, first_head, count;

  /// Tile `index` of ceil(S / tokens of a tile) of each sequence, row tile `part` of all segments.
  __device__ TileRows(const SelectedSizes& sizes, const HeadSegments& segments, std::int64_t index, int part) {
    const int each = segments.tokens_of_tile(), tile = part % segments.tiles();
    const std::int64_t tiles = (sizes.tokens + each - 1) / each, t = index % tiles * each;
    sequence = index / tiles;
    first_token = sequence * sizes.tokens + t;
    tokens = static_cast<int>(sizes.tokens - t < each ? sizes.tokens - t : each);
    first_head = part / segments.tiles() * segments.size + tile * kTileRows;
    per_token = min(kTileRows, segments.size - tile * kTileRows);
    count = tokens * per_token;
  }
  __device__ int token_index(int row) const { return min(row, count - 1) / per_token; }
  __device__ std::int64_t token(int row) const { return first_token + token_index(row); }
  __device__ int head(int row) const { return first_head + min(row, count - 1) % per_token; }
};

/// Walks the keys of one token's blocks, kStep at a time: keys [key, end), of which at most kStep are meant.
template <int kStep>
class TokenWalk {
 public:
  __device__ TokenWalk(const SelectedSizes& sizes, const TileRows& rows, const std::int32_t* blocks, int group, std::uint32_t*, int)
      : list_(blocks + (rows.first_token * sizes.groups + group) * sizes.chosen), chosen_(sizes.chosen), select_block_(sizes.select_block) {
    const std::int64_t seen = sizes.query_start + rows.first_token - rows.sequence * sizes.tokens + 1;
    visible_ = static_cast<int>(seen < sizes.keys ? seen : sizes.keys);
  }
  /// False behind the last one.
  __device__ bool next() {
    key += kStep;
    while (key >= end) {
      if (++slot_ >= chosen_) return false;
      const int block = list_[slot_];
      if (block < 0 || block > (visible_ - 1) / select_block_) continue;
      key = block * select_block_;
      end = min(key + select_block_, visible_);
    }
    return true;
  }
  /// Behind the last of these keys that a token sees.
  __device__ int limit(int) const { return end; }

  int key = 0, end = 0;

 private:
  const std::int32_t* list_;
  int chosen_, select_block_, visible_, slot_ = -1;
};

/// The same for several tokens: the blocks that any of them selected, each with the tokens that did. `bits`: shared memory of the warp,
/// words_of(sizes) for each token.
template <int kStep>
class UnionWalk {
 public:
  static __host__ __device__ int words_of(const SelectedSizes& sizes) { return (sizes.num_blocks + 31) / 32; }

  __device__ UnionWalk(const SelectedSizes& sizes, const TileRows& rows, const std::int32_t* blocks, int group, std::uint32_t* bits, int lane)
      : bits_(bits),
        words_(words_of(sizes)),
        tokens_(rows.tokens),
        select_block_(sizes.select_block),
        lane_(lane),
        keys_(static_cast<int>(sizes.keys)) {
    first_ = static_cast<int>(sizes.query_start + rows.first_token - rows.sequence * sizes.tokens);
    for (int i = lane; i < tokens_ * words_; i += kWarp) bits[i] = 0;
    __syncwarp();
    for (int token = 0; token < tokens_; ++token) {
      const std::int32_t* const list = blocks + ((rows.first_token + token) * sizes.groups + group) * sizes.chosen;
      for (int slot = lane; slot < sizes.chosen; slot += kWarp) {
        const int block = list[slot];
        if (block >= 0 && block <= (visible(token) - 1) / select_block_) atomicOr(bits + token * words_ + block / 32, 1u << block % 32);
      }
    }
    __syncwarp();
  }
  __device__ bool next() {
    key += kStep;
    while (key >= end) {
      while (left_ == 0) {
        if (++word_ >= words_) return false;
        left_ = __reduce_or_sync(0xffffffffu, lane_ < tokens_ ? bits_[lane_ * words_ + word_] : 0u);
      }
      block_ = word_ * 32 + __ffs(static_cast<int>(left_)) - 1;
      left_ &= left_ - 1;
      key = block_ * select_block_;
      end = min(key + select_block_, visible(tokens_ - 1));
    }
    return true;
  }
  __device__ int limit(int token) const { return bits_[token * words_ + block_ / 32] >> block_ % 32 & 1u ? min(end, visible(token)) : 0; }

  int key = 0, end = 0;

 private:
  __device__ int visible(int token) const { return min(first_ + token + 1, keys_); }

  const std::uint32_t* bits_;
  int words_, tokens_, select_block_, lane_, keys_, first_, word_ = -1, block_ = 0;
  std::uint32_t left_ = 0;
};

/// Calls body.operator()<kWidth, kShared, kValue>() for heads whose tensor-core kernels are built; false for others.
template <class Body>
bool visit_widths(const SelectedSizes& sizes, const Body& body) {
  const int key = sizes.key_width, shared = sizes.shared_width, value = sizes.value_width;
  if (key == 128 && shared == 0 && value == 128) {
    body.template operator()<128, 0, 128>();
  } else if (key == 192 && shared == 0 && value == 128) {
    body.template operator()<192, 0, 128>();
  } else if (key == 128 && shared == 64 && value == 128) {
    body.template operator()<192, 64, 128>();
  } else if (key == 64 && shared == 0 && value == 64) {
    body.template operator()<64, 0, 64>();
  } else {
    return false;
  }
  return true;
}

/// Bytes of shared memory that the walks of `warps` warps need.
inline std::size_t walk_bytes(const SelectedSizes& sizes, int warps) {
  const HeadSegments segments(sizes);
  return segments.tokens_of_tile() == 1
             ? 0
             : static_cast<std::size_t>(warps) * segments.tokens_of_tile() * UnionWalk<1>::words_of(sizes) * sizeof(std::uint32_t);
}
inline constexpr std::size_t kMostWalkBytes = 32 * 1024;

inline bool aligned16(const ConstHeads& x) {
  return reinterpret_cast<std::uintptr_t>(x.data) % 16 == 0 && x.token_stride % 8 == 0 && x.head_stride % 8 == 0;
}

}  // namespace hadal::kernels::cuda
