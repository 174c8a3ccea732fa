// Which tile of which expert: a table in shared memory that every block makes from the offsets, and the walk over it.
//
// Tiles never straddle experts; an expert without rows has none. Inside an expert tiles are ordered in bands of kBand tiles of m, in a
// band n by n, so that blocks that run together share rows of A and of B in the second-level cache.
#pragma once

#include <cstdint>

#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/grouped_product.h"

namespace hadal::kernels::cuda {

inline constexpr int kMaxGroups = 256;
inline constexpr int kBand = 16;

struct GroupTable {
  int first_row[kMaxGroups + 1];
  int first_tile[kMaxGroups + 1];
};

/// Where a tile lies: its expert's rows, and the place in units of tiles.
struct GroupTile {
  int expert;
  int row_begin, row_end;
  int m_tile, n_tile;
};

__host__ __device__ constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }

/// Tiles of m of an expert. `fixed_m`: extent of m where it is the same for all experts (backward_weight), 0 where it is their rows.
__host__ __device__ constexpr int tiles_of_m(int rows, int fixed_m, int block_m) { return ceil_div(fixed_m == 0 || rows == 0 ? rows : fixed_m, block_m); }

/// By all threads of the block; ends with a barrier. tiles_of(rows): how many pieces of work an expert with so many rows is.
template <class TilesOf>
__device__ inline void build_table(GroupTable& table, const std::int64_t* offsets, int experts, TilesOf tiles_of) {
  if (threadIdx.x < kWarp) {
    const int lane = static_cast<int>(threadIdx.x);
    int before = 0;
    for (int base = 0; base < experts; base += kWarp) {
      const int expert = base + lane;
      int begin = 0, rows = 0;
      if (expert < experts) {
        begin = static_cast<int>(offsets[expert]);
        rows = static_cast<int>(offsets[expert + 1]) - begin;
      }
      const int tiles = tiles_of(rows);
      int sum = tiles;
#pragma unroll
      for (int step = 1; step < kWarp; step *= 2) {
        const int other = __shfl_up_sync(0xffffffffu, sum, step);
        if (lane >= step) sum += other;
      }
      if (expert < experts) {
        table.first_row[expert] = begin;
        table.first_tile[expert] = before + sum - tiles;
      }
      if (expert == experts - 1) table.first_row[experts] = begin + rows;
      before += __shfl_sync(0xffffffffu, sum, kWarp - 1);
    }
    if (lane == 0) table.first_tile[experts] = before;
  }
  __syncthreads();
}

/// Called with rising tiles.
class TileWalk {
 public:
  __device__ TileWalk(const GroupTable& table, int n_tiles) : table_(table), n_tiles_(n_tiles) {}

  __device__ GroupTile at(int tile) {
    while (tile >= table_.first_tile[expert_ + 1]) ++expert_;
    const int first = table_.first_tile[expert_], local = tile - first;
    const int m_tiles = (table_.first_tile[expert_ + 1] - first) / n_tiles_;
    const int band = local / (kBand * n_tiles_), in_band = local - band * kBand * n_tiles_;
    const int height = min(kBand, m_tiles - band * kBand);
    return {expert_, table_.first_row[expert_], table_.first_row[expert_ + 1], band * kBand + in_band % height, in_band / height};
  }

 private:
  const GroupTable& table_;
  int n_tiles_;
  int expert_ = 0;
};

/// One expert's product as the simple kernels see it: element (i, k) of A lies at a[i * K + k], or at a[k * M + i] where A is m-major.
template <class T, class Out, GroupedForm kForm>
struct ExpertProduct {
  static constexpr bool kMajorM = kForm == GroupedForm::kBackwardWeight;
  static constexpr bool kMajorN = kForm != GroupedForm::kForward;
  static constexpr bool kMayAdd = kForm == GroupedForm::kBackwardWeight;

  __device__ ExpertProduct(const GroupedProduct& p, const GroupTile& tile) {
    const std::size_t row = static_cast<std::size_t>(tile.row_begin), expert = static_cast<std::size_t>(tile.expert);
    const std::size_t in = static_cast<std::size_t>(p.in), out = static_cast<std::size_t>(p.out);
    const int rows = tile.row_end - tile.row_begin;
    const std::size_t weight = expert * out * in;
    if constexpr (kForm == GroupedForm::kForward) {
      a = static_cast<const T*>(p.a) + row * in, b = static_cast<const T*>(p.b) + weight, c = static_cast<Out*>(p.c) + row * out;
      m = rows, n = p.out, k = p.in;
    } else if constexpr (kForm == GroupedForm::kBackwardInput) {
      a = static_cast<const T*>(p.a) + row * out, b = static_cast<const T*>(p.b) + weight, c = static_cast<Out*>(p.c) + row * in;
      m = rows, n = p.in, k = p.out;
    } else {
      a = static_cast<const T*>(p.a) + row * out, b = static_cast<const T*>(p.b) + row * in, c = static_cast<Out*>(p.c) + weight;
      m = p.out, n = p.in, k = rows;
    }
  }

  const T* a;
  const T* b;
  Out* c;
  int m, n, k;
};

/// Extents of a form that all experts share: m (0 where it is the rows) and n.
__host__ __device__ constexpr int fixed_m(const GroupedProduct& p) { return p.form == GroupedForm::kBackwardWeight ? p.out : 0; }
__host__ __device__ constexpr int fixed_n(const GroupedProduct& p) { return p.form == GroupedForm::kForward ? p.out : p.in; }

}  // namespace hadal::kernels::cuda
