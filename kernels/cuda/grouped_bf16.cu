// Grouped products in bf16 of any sizes and alignment, by mma.sync: 128 x 128 tiles, eight warps of 64 x 32, operands in two buffers of
// shared memory, in the order in which they are stored (ldmatrix transposes where k is not the fast index). What the tensor copy
// engine takes goes through grouped_wgmma.cu instead.
#include "kernels/cuda/check.h"
#include "kernels/cuda/grouped_tiles.cuh"

namespace hadal::kernels::cuda {
namespace {

using Element = __nv_bfloat16;

constexpr int kThreads = 256, kTile = 128, kDepth = 32;
constexpr int kVector = 8;  // elements of 16 bytes
constexpr int kPerThread = kTile * kDepth / kVector / kThreads;

/// A tile of an operand as it is stored: lines of the fast index, each padded by 16 bytes so that ldmatrix meets no bank twice.
template <bool kMajorMn>
struct Layout {
  static constexpr int kFast = kMajorMn ? kTile : kDepth;
  static constexpr int kLine = kFast + kVector;
  static constexpr int kSize = (kMajorMn ? kDepth : kTile) * kLine;
};

/// This thread's part of a tile, on its way through registers.
struct Staged {
  Vec16<Element> at[kPerThread];
};

template <bool kMajorMn>
__device__ void fetch(Staged& to, const Element* from, int mn0, int mn_end, int k0, int k_end) {
  using L = Layout<kMajorMn>;
  const int fast0 = kMajorMn ? mn0 : k0, fast_end = kMajorMn ? mn_end : k_end;
  const int slow0 = kMajorMn ? k0 : mn0, slow_end = kMajorMn ? k_end : mn_end;
  const bool vectors = aligned16(from, fast_end);
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    const int vector = static_cast<int>(threadIdx.x) + i * kThreads;
    const int slow = slow0 + vector / (L::kFast / kVector), fast = fast0 + vector % (L::kFast / kVector) * kVector;
    const Element* const source = from + static_cast<std::size_t>(slow) * fast_end + fast;
    if (vectors && slow < slow_end && fast < fast_end) {
      to.at[i] = load16(source);
    } else {
#pragma unroll
      for (int j = 0; j < kVector; ++j) to.at[i].at[j] = slow < slow_end && fast + j < fast_end ? source[j] : Element(0.0f);
    }
  }
}

template <bool kMajorMn>
__device__ void put(Element* tile, const Staged& from) {
  using L = Layout<kMajorMn>;
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    const int vector = static_cast<int>(threadIdx.x) + i * kThreads;
    store16(tile + vector / (L::kFast / kVector) * L::kLine + vector % (L::kFast / kVector) * kVector, from.at[i]);
  }
}

/// Four 8 x 8 matrices; this lane names a line of one of them.
template <bool kTransposed>
__device__ void load_matrices(unsigned (&to)[4], const Element* line) {
  const auto address = static_cast<unsigned>(__cvta_generic_to_shared(line));
  if constexpr (kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(address) : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];" : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(address) : "memory");
  }
}

/// 16 of mn by 16 of k from (mn, k): matrices in the order (mn, k), (mn + 8, k), (mn, k + 8), (mn + 8, k + 8) for A, and with the two
/// middle ones exchanged for B (two columns of 8).
template <bool kMajorMn, bool kIsB>
__device__ void load_fragment(unsigned (&to)[4], const Element* tile, int mn, int k) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, matrix = lane / 8;
  mn += (kIsB ? matrix / 2 : matrix % 2) * 8;
  k += (kIsB ? matrix % 2 : matrix / 2) * 8;
  const int line = (kMajorMn ? k : mn) + lane % 8, fast = kMajorMn ? mn : k;
  load_matrices<kMajorMn>(to, tile + line * Layout<kMajorMn>::kLine + fast);
}

__device__ void multiply_add(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

template <GroupedForm kForm>
__global__ void __launch_bounds__(kThreads) multiply(GroupedProduct p) {
  using Out = std::conditional_t<kForm == GroupedForm::kBackwardWeight, float, Element>;
  using Product = ExpertProduct<Element, Out, kForm>;
  constexpr bool kMajorM = Product::kMajorM, kMajorN = Product::kMajorN;
  constexpr int kM = 4, kN = 4;  // 16-row and 8-column pieces of a warp's 64 x 32
  __shared__ GroupTable table;
  __shared__ __align__(16) Element a_tile[2][Layout<kMajorM>::kSize], b_tile[2][Layout<kMajorN>::kSize];
  const int n_tiles = ceil_div(fixed_n(p), kTile);
  build_table(table, p.offsets, p.experts, [&](int rows) { return tiles_of_m(rows, fixed_m(p), kTile) * n_tiles; });
  TileWalk walk(table, n_tiles);
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp_m = warp % 2 * 64, warp_n = warp / 2 * 32;
  for (int tile = static_cast<int>(blockIdx.x); tile < table.first_tile[p.experts]; tile += static_cast<int>(gridDim.x)) {
    const GroupTile at = walk.at(tile);
    const Product product(p, at);
    const int m0 = at.m_tile * kTile, n0 = at.n_tile * kTile, steps = ceil_div(product.k, kDepth);
    float sum[kM][kN][4] = {};
    Staged a_next, b_next;
    fetch<kMajorM>(a_next, product.a, m0, product.m, 0, product.k);
    fetch<kMajorN>(b_next, product.b, n0, product.n, 0, product.k);
    put<kMajorM>(a_tile[0], a_next);
    put<kMajorN>(b_tile[0], b_next);
    __syncthreads();
    for (int step = 0; step < steps; ++step) {
      const bool more = step + 1 < steps;
      if (more) {
        fetch<kMajorM>(a_next, product.a, m0, product.m, (step + 1) * kDepth, product.k);
        fetch<kMajorN>(b_next, product.b, n0, product.n, (step + 1) * kDepth, product.k);
      }
      const Element* const a = a_tile[step % 2];
      const Element* const b = b_tile[step % 2];
#pragma unroll
      for (int k = 0; k < kDepth; k += 16) {
        unsigned a_part[kM][4], b_part[kN / 2][4];
#pragma unroll
        for (int i = 0; i < kM; ++i) load_fragment<kMajorM, false>(a_part[i], a, warp_m + i * 16, k);
#pragma unroll
        for (int j = 0; j < kN / 2; ++j) load_fragment<kMajorN, true>(b_part[j], b, warp_n + j * 16, k);
#pragma unroll
        for (int i = 0; i < kM; ++i) {
#pragma unroll
          for (int j = 0; j < kN; ++j) multiply_add(sum[i][j], a_part[i], b_part[j / 2][j % 2 * 2], b_part[j / 2][j % 2 * 2 + 1]);
        }
      }
      if (more) {
        put<kMajorM>(a_tile[(step + 1) % 2], a_next);
        put<kMajorN>(b_tile[(step + 1) % 2], b_next);
      }
      __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < kM; ++i) {
#pragma unroll
      for (int j = 0; j < kN; ++j) {
#pragma unroll
        for (int part = 0; part < 4; ++part) {
          const int m = m0 + warp_m + i * 16 + lane / 4 + part / 2 * 8, n = n0 + warp_n + j * 8 + lane % 4 * 2 + part % 2;
          if (m >= product.m || n >= product.n) continue;
          Out& to = product.c[static_cast<std::size_t>(m) * product.n + n];
          if constexpr (Product::kMayAdd) {
            to = p.add ? to + sum[i][j][part] : sum[i][j][part];
          } else {
            to = from_float<Out>(sum[i][j][part]);
          }
        }
      }
    }
  }
}

}  // namespace

void multiply_grouped_bf16(Stream& stream, const GroupedProduct& product, const char* op) {
  const int blocks = 2 * num_multiprocessors(stream.device().index);
  switch (product.form) {
    case GroupedForm::kForward: multiply<GroupedForm::kForward><<<blocks, kThreads, 0, native(stream)>>>(product); break;
    case GroupedForm::kBackwardInput: multiply<GroupedForm::kBackwardInput><<<blocks, kThreads, 0, native(stream)>>>(product); break;
    case GroupedForm::kBackwardWeight: multiply<GroupedForm::kBackwardWeight><<<blocks, kThreads, 0, native(stream)>>>(product); break;
  }
  check_launch(op);
}

}  // namespace hadal::kernels::cuda
