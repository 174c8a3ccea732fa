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
};

/// Walks the keys of a row's blocks, kStep at a time: keys [key, end), of which at most kStep are meant.
template <int kStep>
struct KeyWalk {
  const std::int32_t* list;
  int chosen, select_block, visible;  ///< visible: keys up to the row's position
  int slot = -1, key = 0, end = 0;

  __device__ KeyWalk(const SelectedSizes& sizes, const std::int32_t* blocks, std::int64_t position)
      : list(blocks), chosen(sizes.chosen), select_block(sizes.select_block), visible(static_cast<int>(position + 1 < sizes.keys ? position + 1 : sizes.keys)) {}

  /// False behind the last one.
  __device__ bool next() {
    key += kStep;
    while (key >= end) {
      if (++slot >= chosen) return false;
      const int block = list[slot];
      if (block < 0 || block > (visible - 1) / select_block) continue;
      key = block * select_block;
      end = key + select_block < visible ? key + select_block : visible;
    }
    return true;
  }
};

inline bool aligned16(const ConstHeads& x) {
  return reinterpret_cast<std::uintptr_t>(x.data) % 16 == 0 && x.token_stride % 8 == 0 && x.head_stride % 8 == 0;
}

}  // namespace hadal::kernels::cuda
