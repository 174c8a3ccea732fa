// Grouped products in f32, for tests and small runs: 64 x 64 tiles in shared memory, 4 x 4 sums a thread, k in order.
#include "kernels/cuda/check.h"
#include "kernels/cuda/grouped_tiles.cuh"

namespace hadal::kernels::cuda {
namespace {

constexpr int kThreads = 256, kTile = 64, kDepth = 16, kPad = 4;

/// rows [mn0, mn0 + kTile) by [k0, k0 + kDepth) of an operand, zero outside it, as tile[k][mn].
template <bool kMajorMn>
__device__ void load_tile(float (&tile)[kDepth][kTile + kPad], const float* from, int mn0, int mn_end, int k0, int k_end) {
#pragma unroll
  for (int i = 0; i < kTile * kDepth / kThreads; ++i) {
    const int index = static_cast<int>(threadIdx.x) + i * kThreads;
    const int mn = kMajorMn ? index % kTile : index / kDepth, k = kMajorMn ? index / kTile : index % kDepth;
    const bool inside = mn0 + mn < mn_end && k0 + k < k_end;
    const std::size_t at = kMajorMn ? static_cast<std::size_t>(k0 + k) * mn_end + mn0 + mn : static_cast<std::size_t>(mn0 + mn) * k_end + k0 + k;
    tile[k][mn] = inside ? from[at] : 0.0f;
  }
}

template <GroupedForm kForm>
__global__ void __launch_bounds__(kThreads) multiply(GroupedProduct p) {
  __shared__ GroupTable table;
  __shared__ float a_tile[kDepth][kTile + kPad], b_tile[kDepth][kTile + kPad];
  using Product = ExpertProduct<float, float, kForm>;
  const int n_tiles = ceil_div(fixed_n(p), kTile);
  build_table(table, p.offsets, p.experts, [&](int rows) { return tiles_of_m(rows, fixed_m(p), kTile) * n_tiles; });
  TileWalk walk(table, n_tiles);
  const int row = static_cast<int>(threadIdx.x) / 16 * 4, column = static_cast<int>(threadIdx.x) % 16 * 4;
  for (int tile = static_cast<int>(blockIdx.x); tile < table.first_tile[p.experts]; tile += static_cast<int>(gridDim.x)) {
    const GroupTile at = walk.at(tile);
    const Product product(p, at);
    const int m0 = at.m_tile * kTile, n0 = at.n_tile * kTile;
    float sum[4][4] = {};
    for (int k0 = 0; k0 < product.k; k0 += kDepth) {
      load_tile<Product::kMajorM>(a_tile, product.a, m0, product.m, k0, product.k);
      load_tile<Product::kMajorN>(b_tile, product.b, n0, product.n, k0, product.k);
      __syncthreads();
#pragma unroll
      for (int k = 0; k < kDepth; ++k) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
#pragma unroll
          for (int j = 0; j < 4; ++j) sum[i][j] = fmaf(a_tile[k][row + i], b_tile[k][column + j], sum[i][j]);
        }
      }
      __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int m = m0 + row + i, n = n0 + column + j;
        if (m >= product.m || n >= product.n) continue;
        float& to = product.c[static_cast<std::size_t>(m) * product.n + n];
        to = Product::kMayAdd && p.add ? to + sum[i][j] : sum[i][j];
      }
    }
  }
}

}  // namespace

void multiply_grouped_f32(Stream& stream, const GroupedProduct& product, const char* op) {
  const int blocks = 4 * num_multiprocessors(stream.device().index);
  switch (product.form) {
    case GroupedForm::kForward: multiply<GroupedForm::kForward><<<blocks, kThreads, 0, native(stream)>>>(product); break;
    case GroupedForm::kBackwardInput: multiply<GroupedForm::kBackwardInput><<<blocks, kThreads, 0, native(stream)>>>(product); break;
    case GroupedForm::kBackwardWeight: multiply<GroupedForm::kBackwardWeight><<<blocks, kThreads, 0, native(stream)>>>(product); break;
  }
  check_launch(op);
}

}  // namespace hadal::kernels::cuda
