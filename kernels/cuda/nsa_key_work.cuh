// How the gradients of keys over selected blocks are made: the keys of a block take the rows (token, head) that read it, by the lists of
// nsa_index.cuh, 32 rows at a time through shared memory. Every token reads the first block, so long lists are cut into pieces of so many
// tiles, whose sums are added up in their order.
#pragma once

#include "core/tensor.h"
#include "kernels/cuda/nsa_fragments.cuh"
#include "kernels/cuda/nsa_index.cuh"

namespace hadal::kernels::cuda {

inline constexpr int kRows = 32;  ///< of a tile
inline constexpr int kLeastPieceTiles = 512;
inline constexpr int kMostKeys = 64;  ///< of a tile of keys

/// Outputs (block, sequence, key head), the blocks that most tokens read first. Of output i: pieces starts[i] .. starts[i + 1), and if
/// those are several, partial sums slots[i] .. slots[i + 1).
struct Work {
  const std::int32_t* starts;
  const std::int32_t* slots;
  int outputs, key_tiles, piece_tiles;
};

struct Output {
  int block, b, kv;

  __device__ Output(const SelectedSizes& sizes, int index)
      : block(index / sizes.key_heads / static_cast<int>(sizes.batch)),
        b(index / sizes.key_heads % static_cast<int>(sizes.batch)),
        kv(index % sizes.key_heads) {}
};

struct Lists {
  BlockListsView view;
  HeadSegments segments;
  int segments_of_key;

  __device__ int first_segment(const Output& out) const { return out.kv * segments_of_key; }
  __device__ int group(const SelectedSizes& sizes, int segment) const { return segment * segments.size / sizes.heads_per_group(); }
  __device__ int rows(const SelectedSizes& sizes, const Output& out, int segment) const {
    const int g = group(sizes, segment);
    return (view.end(out.b, g, out.block) - view.begin(out.b, g, out.block)) * segments.size;
  }
  __device__ int tiles(const SelectedSizes& sizes, const Output& out) const {
    int sum = 0;
    for (int i = 0; i < segments_of_key; ++i) sum += (rows(sizes, out, first_segment(out) + i) + kRows - 1) / kRows;
    return sum;
  }
};

/// The work of an op, planned on the device; upper bounds on the host.
class KeyPlan {
 public:
  /// At most `wanted` pieces more than there are outputs, unless they would be shorter than kLeastPieceTiles.
  KeyPlan(Stream& stream, const SelectedSizes& sizes, const Lists& lists, int keys_of_tile, std::int64_t wanted);
  const Work& work() const { return work_; }
  unsigned blocks() const { return static_cast<unsigned>(pieces_ * work_.key_tiles); }  ///< (piece, key tile)
  std::int64_t slots() const { return slots_; }                                         ///< partial sums

 private:
  Tensor plan_;
  Work work_;
  std::int64_t pieces_, slots_;
};

/// A piece of the work: tiles [first_tile, first_tile + tiles) of an output.
struct Piece {
  int index, number, pieces, first_tile;

  /// Piece `of` of all, which must be there.
  __device__ Piece(const Work& work, int of) : index(0) {
    for (int size = work.outputs; size > 1;) {  // the last output that starts at or before the piece
      const int half = size / 2;
      if (work.starts[index + half] <= of) {
        index += half;
        size -= half;
      } else {
        size = half;
      }
    }
    number = of - work.starts[index];
    pieces = work.starts[index + 1] - work.starts[index];
    first_tile = number * work.piece_tiles;
  }
};

struct KeyGradients {
  HeadRows<const bf16> d_o;
  const float* lse;
  const float* delta;
  HeadRows<bf16> d_k, d_v;
  float* shared;   ///< [B*Sk, Hk, kShared]: d_k_shared of each key head
  float* partial;  ///< [slots, key tiles, kKeys, kWidth + kValue]
  bool add_to_keys;
};

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

/// To or onto two neighbouring channels.
__device__ inline void put_pair(bf16* at, float a, float b, bool add) {
  auto* const to = reinterpret_cast<__nv_bfloat162*>(at);
  if (add) {
    const float2 old = __bfloat1622float2(*to);
    a += old.x;
    b += old.y;
  }
  *to = __floats2bfloat162_rn(a, b);
}

/// grid (outputs * key tiles, kKeys): adds up the pieces of an output that has several; a thread a channel of d_k or d_v.
template <int kWidth, int kShared, int kValue, int kKeys, int kThreads>
__global__ void __launch_bounds__(kThreads) sum_pieces_kernel(SelectedSizes sizes, KeyGradients grad, Work work) {
  const int index = static_cast<int>(blockIdx.x) / work.key_tiles, key_tile = static_cast<int>(blockIdx.x) % work.key_tiles;
  const int begin = work.slots[index], end = work.slots[index + 1], key = static_cast<int>(blockIdx.y);
  const Output out(sizes, index);
  const int in_block = key_tile * kKeys + key, position = out.block * sizes.select_block + in_block;
  if (begin == end || in_block >= sizes.select_block || position >= sizes.keys) return;
  const std::int64_t row = out.b * sizes.keys + position;
  for (int channel = static_cast<int>(threadIdx.x); channel < kWidth + kValue; channel += kThreads) {
    float sum = 0;
    for (int slot = begin; slot < end; ++slot) {
      sum += grad.partial[((static_cast<std::int64_t>(slot) * work.key_tiles + key_tile) * kKeys + key) * (kWidth + kValue) + channel];
    }
    if (channel >= kWidth - kShared && channel < kWidth) {
      grad.shared[(row * sizes.key_heads + out.kv) * kShared + channel - (kWidth - kShared)] = sum;
      continue;
    }
    bf16* const to = channel < kWidth ? grad.d_k.at(row, out.kv) + channel : grad.d_v.at(row, out.kv) + channel - kWidth;
    *to = __float2bfloat16_rn(grad.add_to_keys ? sum + to_float(*to) : sum);
  }
}

}  // namespace hadal::kernels::cuda
