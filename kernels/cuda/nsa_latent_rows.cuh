// Tiles of 32 rows (token, head) in shared memory for the gradients of latent entries, by cp.async.
#pragma once

#include "kernels/cuda/nsa_fragments.cuh"
#include "kernels/cuda/nsa_key_work.cuh"

namespace hadal::kernels::cuda {

inline constexpr int kRows = static_cast<int>(kLatentTileRows);  ///< of a tile

template <int kWidth, int kValue>
struct Stage {
  bf16 q[kRows * kWidth], d_o[kRows * kValue];
  float lse[kRows], delta[kRows];
  int limit[kRows];  ///< last key that the row sees, counted in the tile of keys; -1: padding
};

/// 16-byte pieces of a row change places from row to row, so that 8 rows meet all banks.
__device__ inline int piece_of(int row, int piece) { return piece ^ (row & 7); }

/// Brings tiles of rows to shared memory, kThreads / kRows threads a row.
template <int kWidth, int kValue, int kThreads>
class Gatherer {
 public:
  __device__ Gatherer(const SelectedInputs<bf16>& in, const KeyGradients& grad, const Lists& lists, const Output& out, int first_key)
      : in_(in), grad_(grad), lists_(lists), out_(out), first_key_(first_key) {}

  /// To the given tile of the output's rows.
  __device__ void seek(int tile) {
    segment_ = lists_.first_segment(out_);
    enter();
    while (tile > 0 && tile >= tiles_) {
      tile -= tiles_;
      ++segment_;
      enter();
    }
    tile_ = tile;
    settle();
    fetch();
  }
  /// Starts the copies of the tile and moves on; the stage's other values are written at once.
  __device__ void load(Stage<kWidth, kValue>& stage) {
    const int row = static_cast<int>(threadIdx.x) / kOfRow, part = static_cast<int>(threadIdx.x) % kOfRow;
    const bool valid = token_ >= 0;
    const std::int64_t token = static_cast<std::int64_t>(out_.b) * in_.sizes.tokens + (valid ? token_ : 0);
    const bf16* const q = in_.q.at(token, head_);
    const bf16* const d_o = grad_.d_o.at(token, head_);
#pragma unroll
    for (int piece = part; piece < kWidth / 8; piece += kOfRow) {
      copy16_async(shared_address(stage.q + row * kWidth + piece_of(row, piece) * 8), q + piece * 8, valid);
    }
#pragma unroll
    for (int piece = part; piece < kValue / 8; piece += kOfRow) {
      copy16_async(shared_address(stage.d_o + row * kValue + piece_of(row, piece) * 8), d_o + piece * 8, valid);
    }
    if (part == 0) {
      const std::int64_t at = token * in_.sizes.heads + head_;
      stage.lse[row] = valid ? grad_.lse[at] * kLog2E : 0.0f;
      stage.delta[row] = valid ? grad_.delta[at] : 0.0f;
      const std::int64_t limit = in_.sizes.query_start + token_ - first_key_;
      stage.limit[row] = valid ? static_cast<int>(limit < kMostKeys ? limit : kMostKeys) : -1;
    }
    ++tile_;
    settle();
    fetch();
  }

 private:
  static constexpr int kOfRow = kThreads / kRows;

  __device__ void enter() {
    rows_ = lists_.rows(in_.sizes, out_, segment_);
    tiles_ = (rows_ + kRows - 1) / kRows;
    begin_ = lists_.view.begin(out_.b, lists_.group(in_.sizes, segment_), out_.block);
  }
  __device__ void settle() {
    while (tile_ >= tiles_ && segment_ + 1 < lists_.first_segment(out_) + lists_.segments_of_key) {
      ++segment_;
      enter();
      tile_ = 0;
    }
  }
  // The row of the next tile, a tile before it is needed.
  __device__ void fetch() {
    const int row = tile_ * kRows + static_cast<int>(threadIdx.x) / kOfRow;
    const bool valid = row < rows_;
    token_ = valid ? lists_.view.token(lists_.view.entries[begin_ + row / lists_.segments.size]) : -1;
    head_ = segment_ * lists_.segments.size + (valid ? row % lists_.segments.size : 0);
  }

  const SelectedInputs<bf16>& in_;
  const KeyGradients& grad_;
  const Lists& lists_;
  const Output out_;
  int first_key_, segment_ = 0, rows_ = 0, tiles_ = 0, begin_ = 0, tile_ = 0, token_ = -1, head_ = 0;
};

}  // namespace hadal::kernels::cuda
