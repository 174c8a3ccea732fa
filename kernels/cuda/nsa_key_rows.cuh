// Tiles of rows (token, head) that read a block of keys, gathered into shared memory in the layout of attention_products.cuh: chunks of 64
// columns, 128-byte lines, 16-byte pieces exchanged by the line. By cp.async, as the rows of a tile may lie anywhere; 8 lanes a line.
#pragma once

#include "kernels/cuda/nsa_key_work.cuh"
#include "kernels/cuda/tile_copy.cuh"

namespace hadal::kernels::cuda {

inline constexpr int kGroupRows = 16;  ///< rows that a warp gathers; where heads come by 16, those of one token

/// d_s of the rows by token, kept for d_q: bf16 words in the order of A of mma.sync (heads by keys), so that a product takes them as they
/// are. [tokens * n, parts, select_block / 16, lanes], tokens (over all sequences) from first_token on, parts: groups of 16 heads from first_head
/// on. Null data: not kept.
struct ScoreGradients {
  uint4* data;
  int first_head, parts;
  std::int64_t first_token, tokens;

  /// Of 16 keys, step `step` of the block that is entry `place` of all tokens' lists.
  __device__ uint4* at(const SelectedSizes& sizes, std::int64_t place, int part, int step) const {
    return data + (((place - first_token * sizes.chosen) * parts + part) * (sizes.select_block / 16) + step) * kWarp;
  }
};

/// What belongs to the rows of a tile beside q and d_o.
template <int kRows>
struct RowValues {
  float lse[kRows], delta[kRows];
  int limit[kRows];               ///< last key that the row sees, counted in the tile of keys; -1: padding
  int place[kRows / kGroupRows];  ///< where heads come by 16: token * n + place in the token's list; -1: padding
  int part[kRows / kGroupRows];   ///< ... and which 16 of the heads whose d_s are kept
};

/// The same row of one tile after another.
class RowWalk {
 public:
  struct Row {
    int entry;  ///< of the block's list (nsa_index.cuh); -1: padding
    int head;
  };

  /// Row `row` of tile `tile` of the output is the first.
  __device__ RowWalk(const SelectedSizes& sizes, const Lists& lists, const Output& out, int tile, int row)
      : sizes_(sizes), lists_(lists), out_(out), row_(row), segment_(lists.first_segment(out)) {
    enter(tile);
    while (leaves()) enter(tile_ - tiles_, ++segment_);
  }
  __device__ Row next() {
    const Row row{index_ < count_ ? lists_.view.entries[begin_ + index_] : -1, segment_ * lists_.segments.size + head_};
    index_ += step_index_;
    head_ += step_head_;
    if (head_ >= lists_.segments.size) {
      head_ -= lists_.segments.size;
      ++index_;
    }
    ++tile_;
    while (leaves()) enter(tile_ - tiles_, ++segment_);
    return row;
  }

 private:
  __device__ bool leaves() const { return tile_ >= tiles_ && segment_ + 1 < lists_.first_segment(out_) + lists_.segments_of_key; }
  __device__ void enter(int tile) { enter(tile, segment_); }
  __device__ void enter(int tile, int segment) {
    const int group = lists_.group(sizes_, segment), size = lists_.segments.size;
    begin_ = lists_.view.begin(out_.b, group, out_.block);
    count_ = lists_.view.end(out_.b, group, out_.block) - begin_;
    tiles_ = (count_ * size + lists_.tile_rows - 1) / lists_.tile_rows;
    tile_ = tile;
    const int row = tile * lists_.tile_rows + row_;
    index_ = row / size;
    head_ = row % size;
    step_index_ = lists_.tile_rows / size;
    step_head_ = lists_.tile_rows % size;
  }

  const SelectedSizes& sizes_;
  const Lists& lists_;
  const Output& out_;
  int row_, segment_, tile_ = 0, tiles_ = 0, begin_ = 0, count_ = 0, index_ = 0, head_ = 0, step_index_ = 0, step_head_ = 0;
};

/// 4 bytes to shared memory, zero where `valid` is false.
__device__ __forceinline__ void copy4_async(std::uint32_t to, const void* from, bool valid) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from), "r"(valid ? 4 : 0) : "memory");
}
/// Arrives at the barrier when all copies that this thread has started are there.
__device__ __forceinline__ void arrive_after_copies(std::uint64_t* barrier) {
  asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(hopper::shared_address(barrier)) : "memory");
}

/// Where a line's piece of 16 bytes lies in a chunk.
__device__ __forceinline__ std::uint32_t piece_at(int row, int piece) {
  return static_cast<std::uint32_t>(row * hopper::kChunkRowBytes + (piece ^ (row & 7)) * 16);
}

/// Keys [0, num_keys) of `source` as a tile of 64, the rest zeros; by all threads, which then fence and meet.
template <int kWidth, int kShared>
__device__ __forceinline__ void keep_keys(unsigned char* to, const KeySource<kShared>& source, int num_keys) {
  constexpr int kPieces = kWidth / 8;
  for (int i = static_cast<int>(threadIdx.x); i < kMostKeys * kPieces; i += static_cast<int>(blockDim.x)) {
    const int key = i / kPieces, piece = i % kPieces;
    const uint4 words = key < num_keys ? load_row16(source.at(key, piece * 8)) : make_uint4(0, 0, 0, 0);
    *reinterpret_cast<uint4*>(to + piece / 8 * kMostKeys * hopper::kChunkRowBytes + piece_at(key, piece % 8)) = words;
  }
}

}  // namespace hadal::kernels::cuda
