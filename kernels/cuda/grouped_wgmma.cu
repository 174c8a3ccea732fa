// Grouped products in bf16 on Hopper's warpgroup tensor cores.
//
// Blocks stay on their multiprocessor and walk over tiles of 128 x kN, two by two: a cluster of two blocks takes two tiles of one expert
// that lie one above the other and reads their B once, each block one half for both, or, where a last row of tiles is left over, two
// tiles side by side and their A. One thread of the third warpgroup has the copy engine fill a ring of stages (64 of k each); two
// warpgroups multiply, 64 rows each, and are free to drift apart by the length of the ring, so that one stores its results while the
// other keeps the tensor cores busy. The copy engine takes results from shared memory while the next tile is multiplied. Rows of a tile
// past the expert's end are its neighbour's: they are multiplied and not stored. In backward_weight k runs over the expert's rows, and
// what the last stage holds past its end is zeroed in shared memory first.
//
// With SwiGLU a tile's B is 128 rows of gates and the 128 rows of ups of the same columns. The multiplying warps leave both, rounded, in
// shared memory and go on; from there the copy engine takes them, and the third warpgroup's other warps make h of them meanwhile.
#include <algorithm>

#include "kernels/cuda/check.h"
#include "kernels/cuda/grouped_store.cuh"
#include "kernels/cuda/grouped_tiles.cuh"
#include "kernels/cuda/hopper.cuh"
#include "kernels/cuda/tensor_map.h"

namespace hadal::kernels::cuda {
namespace {

constexpr int kM = 128, kK = 64;
constexpr int kGroupThreads = 128, kThreads = 3 * kGroupThreads, kConsumers = 2;
constexpr int kHelpers = 3;               // warps of the third warpgroup that have no other work
constexpr int kCluster = 2;
constexpr std::uint16_t kBoth = 3;        // both blocks of a cluster
constexpr int kBox = 64 * 64 * 2;         // bytes of 64 lines of 64 elements

template <int kN, bool kSwiglu>
struct Ring {
  static constexpr int kThirdRegisters = kSwiglu ? 120 : 40, kConsumerRegisters = kSwiglu ? 192 : 232;
  static constexpr int kLines = kN == 128 ? 128 : 256;  // of B: of tiles of 240 columns the last 16 are copied and not multiplied
  static constexpr int kBytesA = kM * kLine, kBytesB = kLines * kLine, kStageBytes = kBytesA + kBytesB;
  static constexpr int kStages = kSwiglu ? 3 : kN == 128 ? 6 : 4;
  static constexpr int kWarpStaging = (kSwiglu ? kWholeBuffers : kBuffers) * kStaging;
  static constexpr int kStagingAt = kStages * kStageBytes;
  static constexpr int kTableAt = kStagingAt + kConsumers * 4 * kWarpStaging;
  static constexpr int kBarriersAt = (kTableAt + static_cast<int>(sizeof(GroupTable)) + 7) / 8 * 8;
  static constexpr int kBytes = kBarriersAt + (2 * kStages + 2 * kConsumers * 4) * 8;

  int stage = 0, parity = 0;
  __device__ void advance() {
    if (++stage == kStages) stage = 0, parity ^= 1;
  }
};

/// What the kernel knows beside the maps. Extents as in grouped_product.h; m or k is 0 where it is the expert's rows.
struct Extents {
  void* c;
  const std::int64_t* offsets;
  int experts;
  int m, n, k;
  bool turned;  ///< backward_weight works on the transpose of d_w: m runs along memory
  bool add;     ///< and adds to it
};

/// What SwiGLU needs beside the product; n is then the width of h.
struct SwigluArgs {
  Element* h;
  const float* row_weight;  ///< or nullptr
};

template <GroupedForm kForm>
struct Form {
  static constexpr bool kRaggedK = kForm == GroupedForm::kBackwardWeight;
  static constexpr bool kMajorM = kForm == GroupedForm::kBackwardWeight;
  static constexpr bool kMajorN = kForm != GroupedForm::kForward;
};

/// A block's tile of a pair, and which operand the pair shares.
struct PairTile {
  GroupTile at;
  bool shares_b;
};

/// Pairs of an expert with so many tiles: one above the other, then the last row's side by side (the second of the last pair may lie
/// outside, where there is nothing to store).
__device__ int pairs_of(int m_tiles, int n_tiles) { return m_tiles / 2 * n_tiles + m_tiles % 2 * ceil_div(n_tiles, 2); }

/// Called with rising pairs; pairs of two rows of tiles are ordered in bands as in TileWalk.
class PairWalk {
 public:
  __device__ PairWalk(const GroupTable& table, int fixed_m, int n_tiles, int rank) : table_(table), fixed_m_(fixed_m), n_tiles_(n_tiles), rank_(rank) {}

  __device__ PairTile at(int pair) {
    while (pair >= table_.first_tile[expert_ + 1]) ++expert_;
    const int begin = table_.first_row[expert_], end = table_.first_row[expert_ + 1], local = pair - table_.first_tile[expert_];
    const int m_tiles = tiles_of_m(end - begin, fixed_m_, kM), doubles = m_tiles / 2, beside = local - doubles * n_tiles_;
    if (beside >= 0) return {{expert_, begin, end, m_tiles - 1, 2 * beside + rank_}, false};
    constexpr int kPairBand = kBand / 2;
    const int band = local / (kPairBand * n_tiles_), in_band = local - band * kPairBand * n_tiles_;
    const int height = min(kPairBand, doubles - band * kPairBand);
    return {{expert_, begin, end, 2 * (band * kPairBand + in_band % height) + rank_, in_band / height}, true};
  }

 private:
  const GroupTable& table_;
  int fixed_m_, n_tiles_, rank_;
  int expert_ = 0;
};

/// Box `i` of 64 rows of A, of a tile whose first row is m0 and from k on.
template <GroupedForm kForm>
__device__ void copy_a(std::uint8_t* a, std::uint64_t* full, const CUtensorMap* map, const GroupTile& at, int k, int i, bool to_both) {
  const int m = at.m_tile * kM + i * 64;
  const int x = Form<kForm>::kMajorM ? m : k, y = at.row_begin + (Form<kForm>::kMajorM ? k : m);
  if (to_both) {
    copy_box_to_all(a + i * kBox, map, full, kBoth, x, y);
  } else {
    copy_box(a + i * kBox, map, full, x, y);
  }
}

/// Half `half` of the rows of B; with SwiGLU rows of gates or of ups, `n_end` of each.
template <GroupedForm kForm, int kN, bool kSwiglu>
__device__ void copy_b(std::uint8_t* b, std::uint64_t* full, const CUtensorMap* map, const GroupTile& at, int n_end, int k, int half, bool to_both) {
  constexpr int kHalf = Ring<kN, kSwiglu>::kLines / 2, kBoxes = kForm == GroupedForm::kForward ? 1 : kHalf / 64, kRows = kHalf / kBoxes;
#pragma unroll
  for (int i = 0; i < kBoxes; ++i) {
    const int row = half * kHalf + i * kRows, n = kSwiglu ? at.n_tile * kHalf + half * n_end : at.n_tile * kN + row;
    std::uint8_t* const to = b + row * kLine;
    if constexpr (kForm == GroupedForm::kBackwardWeight) {
      to_both ? copy_box_to_all(to, map, full, kBoth, n, at.row_begin + k) : copy_box(to, map, full, n, at.row_begin + k);
    } else {
      const int x = kForm == GroupedForm::kForward ? k : n, y = kForm == GroupedForm::kForward ? n : k;
      to_both ? copy_box_to_all(to, map, full, kBoth, x, y, at.expert) : copy_box(to, map, full, x, y, at.expert);
    }
  }
}

/// One stage of a tile: A's 128 rows and B's kN, from k on; of the shared operand this block copies half `rank`, to both.
template <GroupedForm kForm, int kN, bool kSwiglu>
__device__ void fill_stage(std::uint8_t* stage, std::uint64_t* full, const CUtensorMap* a_map, const CUtensorMap* b_map, const PairTile& pair,
                           int n_end, int k, int rank) {
  std::uint8_t* const b = stage + Ring<kN, kSwiglu>::kBytesA;
  arrive_expecting(full, Ring<kN, kSwiglu>::kStageBytes);
  if (pair.shares_b) {
    copy_a<kForm>(stage, full, a_map, pair.at, k, 0, false);
    copy_a<kForm>(stage, full, a_map, pair.at, k, 1, false);
    copy_b<kForm, kN, kSwiglu>(b, full, b_map, pair.at, n_end, k, rank, true);
  } else {
    copy_a<kForm>(stage, full, a_map, pair.at, k, rank, true);
    copy_b<kForm, kN, kSwiglu>(b, full, b_map, pair.at, n_end, k, 0, false);
    copy_b<kForm, kN, kSwiglu>(b, full, b_map, pair.at, n_end, k, 1, false);
  }
}

/// Lines [begin, 64) of boxes become zero; by the warpgroup.
__device__ void zero_lines(std::uint8_t* boxes, int count, int begin) {
  const int vectors = (64 - begin) * (kLine / 16);
  for (int i = static_cast<int>(threadIdx.x) % kGroupThreads; i < count * vectors; i += kGroupThreads) {
    *reinterpret_cast<uint4*>(boxes + i / vectors * kBox + begin * kLine + i % vectors * 16) = make_uint4(0, 0, 0, 0);
  }
}

/// Where sums go in a buffer of lines of 32 f32 in the 128-byte swizzle.
__device__ float* place(std::uint8_t* buffer, int line, int at) {
  return reinterpret_cast<float*>(buffer + line * kLine + ((at / 4) ^ (line % 8)) * 16 + at % 4 * 4);
}

__device__ void put_box(const CUtensorMap* map, const void* from, int x, int y, int z, bool add) {
  if (add) {
    add_box(map, from, x, y, z);
  } else {
    store_box(map, from, x, y, z);
  }
}

/// A warp's 16 rows added to d_w, or put there, f32, by the copy engine: 32 columns at a time, so that the warp goes
/// on to its next tile while the second-level cache adds. Each element of d_w is added to once, so the order has no say.
template <int kN>
__device__ void put_rows(const float (&sums)[kN / 2], Staging& staging, const CUtensorMap* map, int m, int n0, int expert, bool add) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, row = lane / 4, column = lane % 4 * 2;
#pragma unroll
  for (int chunk = 0; chunk < kN / 32; ++chunk) {
    std::uint8_t* const buffer = staging.next();
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float* const d = &sums[(chunk * 4 + j) * 4];
#pragma unroll
      for (int h = 0; h < 2; ++h) *reinterpret_cast<float2*>(place(buffer, row + 8 * h, j * 8 + column)) = make_float2(d[2 * h], d[2 * h + 1]);
    }
    fence_shared_stores();
    __syncwarp();
    if (lane == 0) {
      put_box(map, buffer, n0 + chunk * 32, m, expert, add);
      copies_commit();
    }
  }
}

/// The same where rows run along memory (the transpose of d_w is worked on): two warps put their 32 rows side by side, so that a line is
/// 128 bytes here too. `warp`: of the block; `staging`: of the first of the two; `m`: its first row.
template <int kN>
__device__ void put_columns(const float (&sums)[kN / 2], std::uint8_t* staging, const CUtensorMap* map, int m, int n0, int expert, int warp,
                            bool add) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, row = warp % 2 * 16 + lane / 4, column = lane % 4 * 2, barrier = 3 + warp / 2;
  const bool issues = warp % 2 == 0 && lane == 0;
#pragma unroll
  for (int chunk = 0; chunk < kN / 32; ++chunk) {
    std::uint8_t* const buffer = staging + chunk % kBuffers * 2 * kStaging;
    if (issues) copies_wait_read<kBuffers - 1>();
    sync_threads(barrier, 2 * kWarp);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float* const d = &sums[(chunk * 4 + j) * 4];
#pragma unroll
      for (int part = 0; part < 4; ++part) *place(buffer, j * 8 + column + part % 2, row + part / 2 * 8) = d[part];
    }
    fence_shared_stores();
    sync_threads(barrier, 2 * kWarp);
    if (issues) {
      put_box(map, buffer, m, n0 + chunk * 32, expert, add);
      copies_commit();
    }
  }
}

/// A helper warp's work: h of every third multiplying warp's rows of each tile.
template <int kN>
__device__ void help(std::uint8_t* shared, std::uint64_t* ready, std::uint64_t* free, PairWalk& walk, int pairs, int helper, const CUtensorMap& c_map,
                     const Extents& p, const SwigluArgs& swiglu) {
  using R = Ring<kN, true>;
  constexpr int kColumns = kN / 2;
  const Output gate_up{&c_map, static_cast<Element*>(p.c), 2 * p.n};
  int handed = 0;
  for (int pair = static_cast<int>(blockIdx.x) / kCluster; pair < pairs; pair += static_cast<int>(gridDim.x) / kCluster) {
    const GroupTile at = walk.at(pair).at;
    const int n0 = at.n_tile * kColumns, columns = min(p.n - n0, kColumns);
    for (int warp = helper; warp < kConsumers * 4; warp += kHelpers) {
      const int first = at.m_tile * kM + warp * 16, rows = at.row_end - at.row_begin - first, y = at.row_begin + first;
      const float weight = load_weight(swiglu.row_weight, y, rows);
      wait(&ready[warp], handed);
      finish_swiglu(shared + R::kStagingAt + warp * R::kWarpStaging, gate_up, swiglu.h, weight, n0, y, rows, columns);
      __syncwarp();
      if (threadIdx.x % kWarp == 0) arrive(&free[warp]);
    }
    handed ^= 1;
  }
}

template <GroupedForm kForm, int kN, bool kSwiglu>
__global__ void __cluster_dims__(kCluster) __launch_bounds__(kThreads, 1)
    multiply(const __grid_constant__ CUtensorMap a_map, const __grid_constant__ CUtensorMap b_map, const __grid_constant__ CUtensorMap c_map,
             Extents p, SwigluArgs swiglu) {
  using R = Ring<kN, kSwiglu>;
  using F = Form<kForm>;
  extern __shared__ __align__(1024) std::uint8_t shared[];
  GroupTable& table = *reinterpret_cast<GroupTable*>(shared + R::kTableAt);
  std::uint64_t* const full = reinterpret_cast<std::uint64_t*>(shared + R::kBarriersAt);
  std::uint64_t* const empty = full + R::kStages;
  // A multiplying warp's buffers are ready to be read, or free again.
  std::uint64_t* const ready = empty + R::kStages;
  std::uint64_t* const free = ready + kConsumers * 4;
  if (threadIdx.x == 0) {
    prefetch_map(&a_map);
    prefetch_map(&b_map);
    for (int i = 0; i < R::kStages; ++i) {
      init_barrier(&full[i], 1);
      init_barrier(&empty[i], kCluster * kConsumers * 4);
    }
    for (int i = 0; i < kConsumers * 4; ++i) {
      init_barrier(&ready[i], 1);
      init_barrier(&free[i], 1);
    }
    publish_barriers();
  }
  constexpr int kColumns = kSwiglu ? kN / 2 : kN;  // of c, or of h
  const int n_tiles = ceil_div(p.n, kColumns);
  build_table(table, p.offsets, p.experts, [&](int rows) { return pairs_of(tiles_of_m(rows, p.m, kM), n_tiles); });
  const int pairs = table.first_tile[p.experts], clusters = static_cast<int>(gridDim.x) / kCluster, rank = rank_in_cluster();
  sync_cluster();
  PairWalk walk(table, p.m, n_tiles, rank);
  R ring;
  const int group = static_cast<int>(threadIdx.x) / kGroupThreads;

  if (group == kConsumers) {
    shrink_registers<R::kThirdRegisters>();
    if (threadIdx.x == kConsumers * kGroupThreads) {
      for (int pair = static_cast<int>(blockIdx.x) / kCluster; pair < pairs; pair += clusters) {
        const PairTile tile = walk.at(pair);
        const int steps = ceil_div(F::kRaggedK ? tile.at.row_end - tile.at.row_begin : p.k, kK);
        for (int step = 0; step < steps; ++step) {
          wait(&empty[ring.stage], ring.parity ^ 1);
          fill_stage<kForm, kN, kSwiglu>(shared + ring.stage * R::kStageBytes, &full[ring.stage], &a_map, &b_map, tile, p.n, step * kK, rank);
          ring.advance();
        }
      }
    }
    if constexpr (kSwiglu) {
      const int helper = (static_cast<int>(threadIdx.x) - kConsumers * kGroupThreads) / kWarp - 1;
      if (helper >= 0) help<kN>(shared, ready, free, walk, pairs, helper, c_map, p, swiglu);
    }
  } else {
    grow_registers<R::kConsumerRegisters>();
    const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
    // Bytes from one product of 16 k to the next, and the operands' strides.
    constexpr int kStepA = F::kMajorM ? 16 * kLine : 32, kStepB = F::kMajorN ? 16 * kLine : 32;
    std::uint8_t* const buffers = shared + R::kStagingAt + warp * R::kWarpStaging;
    [[maybe_unused]] Staging staging(buffers);
    [[maybe_unused]] int handed = 0;  // parity of tiles handed to the helper
    float sums[kN / 2];
    for (int pair = static_cast<int>(blockIdx.x) / kCluster; pair < pairs; pair += clusters) {
      const GroupTile at = walk.at(pair).at;
      const int rows = at.row_end - at.row_begin, m0 = at.m_tile * kM, n0 = at.n_tile * kColumns;
      const int k_end = F::kRaggedK ? rows : p.k, steps = ceil_div(k_end, kK);
      int previous = 0;
      for (int step = 0; step < steps; ++step) {
        wait(&full[ring.stage], ring.parity);
        std::uint8_t* const stage = shared + ring.stage * R::kStageBytes;
        std::uint8_t* const stage_a = stage + group * kBox;
        if constexpr (F::kRaggedK) {
          if ((step + 1) * kK > k_end) {
            // B's lines are zeroed by both warpgroups: with the same bytes, each before its own products.
            zero_lines(stage_a, 1, k_end - step * kK);
            zero_lines(stage + R::kBytesA, kN / 64, k_end - step * kK);
            fence_shared_stores();
            sync_threads(1 + group, kGroupThreads);
          }
        }
        const std::uint64_t a = operand(shared_address(stage_a), kBox, 8 * kLine);
        const std::uint64_t b = operand(shared_address(stage + R::kBytesA), kBox, 8 * kLine);
        products_begin();
#pragma unroll
        for (int k = 0; k < kK / 16; ++k) {
          product_step<F::kMajorM, F::kMajorN>(sums, a + k * (kStepA >> 4), b + k * (kStepB >> 4), step > 0 || k > 0);
        }
        products_commit();
        products_wait<1>();
        if (step > 0 && lane < kCluster) arrive_at(&empty[previous], lane);
        previous = ring.stage;
        ring.advance();
      }
      products_wait<0>();
      if (lane < kCluster) arrive_at(&empty[previous], lane);

      const int first = m0 + warp * 16;  // this warp's rows of the expert
      if constexpr (F::kRaggedK) {
        if (p.turned) {
          put_columns<kN>(sums, buffers - warp % 2 * R::kWarpStaging, &c_map, first - warp % 2 * 16, n0, at.expert, warp, p.add);
        } else {
          put_rows<kN>(sums, staging, &c_map, first, n0, at.expert, p.add);
        }
      } else if constexpr (kSwiglu) {
        wait(&free[warp], handed ^ 1);
        if (lane == 0) copies_wait_read<0>();
        __syncwarp();
        put_chunks(sums, buffers);
        fence_shared_stores();
        __syncwarp();
        if (lane == 0) {
          copy_whole_gates(buffers, {&c_map, static_cast<Element*>(p.c), 2 * p.n}, n0, at.row_begin + first, rows - first, p.n - n0);
          arrive(&ready[warp]);
        }
        handed ^= 1;
      } else {
        store_rows<kN>(sums, staging, {&c_map, static_cast<Element*>(p.c), p.n}, n0, at.row_begin + first, rows - first, p.n - n0);
      }
    }
    if (lane == 0) copies_wait();
  }
  sync_cluster();  // until then the other block may write to this one's shared memory
}

template <GroupedForm kForm, int kN, bool kSwiglu = false>
void launch(Stream& stream, const CUtensorMap& a, const CUtensorMap& b, const CUtensorMap& c, const Extents& extents, const char* op,
            const SwigluArgs& swiglu = {}) {
  constexpr int kBytes = Ring<kN, kSwiglu>::kBytes;
  static_assert(kBytes <= 227 * 1024);
  allow_shared_memory(multiply<kForm, kN, kSwiglu>, kBytes, op);
  const int blocks = num_multiprocessors(stream.device().index) / kCluster * kCluster;
  multiply<kForm, kN, kSwiglu><<<blocks, kThreads, kBytes, native(stream)>>>(a, b, c, extents, swiglu);
  check_launch(op);
}

/// What tiles of kN columns cost, in any unit: their area, with what lies outside the matrix, and a fourth more for narrow ones, which
/// read A twice as often.
std::int64_t cost(int m, int n, int tile_n) {
  return std::int64_t{ceil_div(m, kM)} * ceil_div(n, tile_n) * tile_n * (tile_n == 128 ? 5 : 4);
}

/// Whether tiles of 240 columns leave less outside n columns than those of 256.
bool narrower(int n) { return cost(kM, n, 240) < cost(kM, n, 256); }

template <GroupedForm kForm>
void multiply_form(Stream& stream, const GroupedProduct& p, const char* op) {
  const auto run = [&]<int kN>(bool turned) {
    if constexpr (kForm == GroupedForm::kForward) {
      launch<kForm, kN>(stream, tensor_map(p.a, 0, p.rows, p.in, 64), tensor_map(p.b, p.experts, p.out, p.in, kN / 2),
                        tensor_map(p.c, 1, p.rows, p.out, 16), {p.c, p.offsets, p.experts, 0, p.out, p.in, false, false}, op);
    } else if constexpr (kForm == GroupedForm::kBackwardInput) {
      launch<kForm, kN>(stream, tensor_map(p.a, 0, p.rows, p.out, 64), tensor_map(p.b, p.experts, p.out, p.in, kK),
                        tensor_map(p.c, 1, p.rows, p.in, 16), {p.c, p.offsets, p.experts, 0, p.in, p.out, false, false}, op);
    } else {
      const CUtensorMap d_y = tensor_map(p.a, 0, p.rows, p.out, kK), x = tensor_map(p.b, 0, p.rows, p.in, kK);
      if (turned) {
        const CUtensorMap d_w = tensor_map_f32(p.c, p.experts, p.out, p.in, 32);
        launch<kForm, kN>(stream, x, d_y, d_w, {p.c, p.offsets, p.experts, p.in, p.out, 0, true, p.add}, op);
      } else {
        const CUtensorMap d_w = tensor_map_f32(p.c, p.experts, p.out, p.in, 16);
        launch<kForm, kN>(stream, d_y, x, d_w, {p.c, p.offsets, p.experts, p.out, p.in, 0, false, p.add}, op);
      }
    }
  };
  const auto best = [&](int m, int n) { return std::min(cost(m, n, 256), cost(m, n, 128)); };
  // In backward_weight the transpose of d_w where that leaves less of the tiles empty.
  const bool turned = kForm == GroupedForm::kBackwardWeight && best(p.in, p.out) < best(p.out, p.in);
  const int m = kForm == GroupedForm::kBackwardWeight ? (turned ? p.in : p.out) : kM;
  const int n = kForm == GroupedForm::kForward || turned ? p.out : p.in;
  if (cost(m, n, 128) < cost(m, n, 256)) return run.template operator()<128>(turned);
  if constexpr (kForm == GroupedForm::kBackwardInput) {
    if (narrower(n)) return run.template operator()<240>(turned);
  }
  run.template operator()<256>(turned);
}

}  // namespace

bool fits_wgmma(const GroupedProduct& p) {
  return p.in > 0 && fits_tensor_map(p.a, p.in) && fits_tensor_map(p.b, p.out) && reinterpret_cast<std::uintptr_t>(p.c) % 16 == 0;
}

bool fits_wgmma(const GroupedSwiglu& p) {
  return fits_wgmma(p.product) && p.product.out % 16 == 0 && reinterpret_cast<std::uintptr_t>(p.h) % 16 == 0;
}

void multiply_grouped_wgmma(Stream& stream, const GroupedSwiglu& swiglu, const char* op) {
  const GroupedProduct& p = swiglu.product;
  launch<GroupedForm::kForward, 256, true>(stream, tensor_map(p.a, 0, p.rows, p.in, 64), tensor_map(p.b, p.experts, p.out, p.in, 128),
                                           tensor_map(p.c, 1, p.rows, p.out, 16), {p.c, p.offsets, p.experts, 0, p.out / 2, p.in, false, false}, op,
                                           {static_cast<Element*>(swiglu.h), swiglu.row_weight});
}

void multiply_grouped_wgmma(Stream& stream, const GroupedProduct& product, const char* op) {
  switch (product.form) {
    case GroupedForm::kForward: return multiply_form<GroupedForm::kForward>(stream, product, op);
    case GroupedForm::kBackwardInput: return multiply_form<GroupedForm::kBackwardInput>(stream, product, op);
    case GroupedForm::kBackwardWeight: return multiply_form<GroupedForm::kBackwardWeight>(stream, product, op);
  }
}

}  // namespace hadal::kernels::cuda
