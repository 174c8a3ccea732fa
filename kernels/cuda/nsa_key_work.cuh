// How the gradients of keys over selected blocks are made: the keys of a block take the rows (token, head) that read it, by the lists of
// nsa_index.cuh, a tile of rows at a time through shared memory. Every token reads the first block, so long lists are cut into pieces of so
// many tiles, whose sums are added up in their order.
#pragma once

#include "core/tensor.h"
#include "kernels/cuda/nsa_fragments.cuh"
#include "kernels/cuda/nsa_index.cuh"

namespace hadal::kernels::cuda {

inline constexpr int kMostKeys = static_cast<int>(kKeyTileKeys);  ///< of a tile of keys

/// Key heads [first, first + count).
struct KeyHeads {
  int first, count;
};

/// A piece of an output's tiles.
struct Item {
  int output, number;  ///< number: counted from the end of the output's tiles
};

/// Outputs (key head, block, sequence). Of output i: starts[i + 1] - starts[i] pieces, and if those are several, or all are partial,
/// partial sums slots[i] .. slots[i + 1). Items are in the order in which they are worked on: by falling number, then by output, so that
/// the shortest run last. Pieces of one number cover about the same tokens where lists are equally dense.
struct Work {
  const std::int32_t* starts;
  const std::int32_t* slots;
  const Item* items;
  KeyHeads heads;
  int outputs, key_tiles, piece_tiles;
};

struct Output {
  int kv, block, b;

  __device__ Output(const SelectedSizes& sizes, const KeyHeads& heads, int index) {
    const int batch = static_cast<int>(sizes.batch), of_head = sizes.num_blocks * batch;
    kv = heads.first + index / of_head;
    block = index % of_head / batch;
    b = index % batch;
  }
};

struct Lists {
  BlockListsView view;
  HeadSegments segments;
  int segments_of_key, tile_rows;

  __device__ int first_segment(const Output& out) const { return out.kv * segments_of_key; }
  __device__ int group(const SelectedSizes& sizes, int segment) const { return segment * segments.size / sizes.heads_per_group(); }
  __device__ int rows(const SelectedSizes& sizes, const Output& out, int segment) const {
    const int g = group(sizes, segment);
    return (view.end(out.b, g, out.block) - view.begin(out.b, g, out.block)) * segments.size;
  }
  __device__ int tiles(const SelectedSizes& sizes, const Output& out) const {
    int sum = 0;
    for (int i = 0; i < segments_of_key; ++i) sum += (rows(sizes, out, first_segment(out) + i) + tile_rows - 1) / tile_rows;
    return sum;
  }
};

/// The work of an op, planned on the device; upper bounds on the host.
class KeyPlan {
 public:
  /// At most `wanted` pieces more than there are outputs, unless they would be short (cuda_scratch.h). `tokens`: of a sequence, that the
  /// lists hold.
  KeyPlan(Stream& stream, const SelectedSizes& sizes, const Lists& lists, KeyHeads heads, int keys_of_tile, std::int64_t wanted, std::int64_t tokens,
          bool all_partial = false);
  const Work& work() const { return work_; }
  unsigned blocks() const { return static_cast<unsigned>(pieces_ * work_.key_tiles); }  ///< (piece, key tile)
  std::int64_t slots() const { return slots_; }                                         ///< partial sums

 private:
  Tensor plan_, items_;
  Work work_;
  std::int64_t pieces_, slots_;
};

/// Item `of` of the work, which must be there: tiles [first_tile, first_tile + tiles) of its output.
struct Piece {
  int index, number, pieces;
  Output out;
  int first_tile, tiles;

  __device__ Piece(const SelectedSizes& sizes, const Lists& lists, const Work& work, int of)
      : index(work.items[of].output),
        number(work.items[of].number),
        pieces(work.starts[index + 1] - work.starts[index]),
        out(sizes, work.heads, index) {
    const int end = lists.tiles(sizes, out) - number * work.piece_tiles;
    first_tile = max(0, end - work.piece_tiles);
    tiles = end - first_tile;
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
  float* carried = nullptr;  ///< [B*Sk, kWidth + kValue] of one key head: sums of the tokens of turns before and of this one
  bool is_first_turn = true, is_last_turn = true;

  /// Whether partial sums are the only result of a piece.
  __device__ bool is_partial(int pieces) const { return pieces > 1 || carried != nullptr; }
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
  const Output out(sizes, work.heads, index);
  const int in_block = key_tile * kKeys + key, position = out.block * sizes.select_block + in_block;
  if (begin == end || in_block >= sizes.select_block || position >= sizes.keys) return;
  const std::int64_t row = out.b * sizes.keys + position;
  float* const carried = grad.carried == nullptr ? nullptr : grad.carried + row * (kWidth + kValue);
  for (int channel = static_cast<int>(threadIdx.x); channel < kWidth + kValue; channel += kThreads) {
    float sum = grad.is_first_turn ? 0.0f : carried[channel];
    for (int slot = begin; slot < end; ++slot) {
      sum += grad.partial[((static_cast<std::int64_t>(slot) * work.key_tiles + key_tile) * kKeys + key) * (kWidth + kValue) + channel];
    }
    if (!grad.is_last_turn) {
      carried[channel] = sum;
      continue;
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
