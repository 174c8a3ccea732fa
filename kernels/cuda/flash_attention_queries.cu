// Gradient of the queries on Hopper, bf16: 128 queries of a head, with their d_o, against tiles of 64 keys. One warpgroup loads, two
// multiply, 64 queries each: s = q k^T and d_p = d_o v^T, then d_q += d_s k with d_s from registers. An item's rows of d_q are its own,
// so nothing is added across items. The product with d_s of one tile runs on while d_s of the next is made.
// A block takes one item of 128 queries after the other: where they see few keys (NSA's pooled ones), copying the next queries takes
// about as long as multiplying, so that they come into a second buffer meanwhile. Which block takes an item does not change its sums.
#include <algorithm>

#include "core/copy.h"
#include "kernels/cuda/attention_statistics.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/flash_attention_blocks.cuh"
#include "kernels/cuda/flash_attention_paths.h"
#include "kernels/cuda/heads_map.h"
#include "kernels/cuda/tile_copy.cuh"

namespace hadal::kernels::cuda {
namespace {

using namespace hopper;
using bf16 = __nv_bfloat16;

constexpr int kKeys = 64;  ///< of a tile
constexpr int kStages = 3;
constexpr int kRowChunk = kTileRows * kChunkRowBytes;  ///< bytes of a chunk of queries or d_o
constexpr int kKeyChunk = kKeys * kChunkRowBytes;      ///< ... of keys or values
constexpr int kOfLoader = 40, kOfMultipliers = 232;    ///< registers: the loader finds items too
constexpr int kStatistics = 2 * kTileRows;

/// Columns: NA chunks of k, NB of k_shared, NV of v. Rows are the queries' chunks, then those of d_o; a stage the keys', then the values'.
template <int NA, int NB, int NV>
struct Form {
  static constexpr int kChunks = NA + NB + NV;
  static constexpr int kRowBuffers = kChunks == 5 ? 1 : 2;  ///< as many as fit
  static constexpr int kRowBytes = kChunks * kRowChunk, kStageBytes = kChunks * kKeyChunk;
  static constexpr int kTileBytes = kRowBuffers * kRowBytes + kStages * kStageBytes;
};

struct Maps {
  CUtensorMap q, q_shared, d_o, k, k_shared, v;
};
struct Shared {
  float statistics[2][kStatistics];
  int item[2];  ///< whose rows a buffer holds
  uint64_t rows_full[2], rows_empty[2], full[kStages], empty[kStages];
};
/// Items of all blocks: `next` counts those taken beside the first of each block.
struct Items {
  int count;
  int* next;
};
/// 128 queries of a head from `query` on, key tiles [first_tile, last_tile).
struct Item {
  int query, head, sequence, first_tile, last_tile;

  __device__ Item(const AttentionSizes& sizes, int index) {
    const int tiles = (sizes.tokens + kTileRows - 1) / kTileRows;
    const BlockTile block(index, tiles, sizes.heads, sizes.batch);
    query = (tiles - 1 - block.tile) * kTileRows;  // the last queries see most keys
    head = block.head;
    sequence = block.sequence;
    first_tile = sizes.begin_of(query) / kKeys;
    last_tile = (sizes.end_of(min(query + kTileRows, sizes.tokens) - 1) + kKeys - 1) / kKeys;
  }
};

template <int NA, int NB, int NV>
__device__ __forceinline__ void load(const AttentionSizes& sizes, const Maps& maps, Shared* shared, uint32_t base, const float* statistics,
                                     const Items& items) {
  using F = Form<NA, NB, NV>;
  Ring<F::kRowBuffers> rows;
  Ring<kStages> ring;
  for (int index = static_cast<int>(blockIdx.x);; index = static_cast<int>(gridDim.x) + atomicAdd(items.next, 1)) {
    uint64_t* const rows_full = &shared->rows_full[rows.stage];
    const uint32_t queries = base + rows.stage * F::kRowBytes, d_outputs = queries + (NA + NB) * kRowChunk;
    wait(&shared->rows_empty[rows.stage], rows.parity ^ 1);
    shared->item[rows.stage] = index;
    if (index >= items.count) {
      arrive(rows_full);
      return;
    }
    const Item item(sizes, index);
    const int query = item.query, head = item.head, kv = head / sizes.group, sequence = item.sequence;
    if (item.first_tile >= item.last_tile) {
      arrive(rows_full);
    } else {
      arrive_expecting(rows_full, F::kRowBytes + kStatistics * static_cast<int>(sizeof(float)));
#pragma unroll
      for (int i = 0; i < NA; ++i) copy_chunk(queries + i * kRowChunk, maps.q, rows_full, i * kChunkColumns, head, query, sequence);
      if constexpr (NB > 0) copy_chunk(queries + NA * kRowChunk, maps.q_shared, rows_full, 0, head, query, sequence);
#pragma unroll
      for (int i = 0; i < NV; ++i) copy_chunk(d_outputs + i * kRowChunk, maps.d_o, rows_full, i * kChunkColumns, head, query, sequence);
      copy_bytes(shared_address(shared->statistics[rows.stage]), statistics + statistics_at(sizes, sequence, head, query),
                 kStatistics * static_cast<int>(sizeof(float)), rows_full);
    }
    for (int tile = item.last_tile - 1; tile >= item.first_tile; --tile) {
      uint64_t* const full = &shared->full[ring.stage];
      const uint32_t keys = base + F::kRowBuffers * F::kRowBytes + ring.stage * F::kStageBytes, values = keys + (NA + NB) * kKeyChunk;
      wait(&shared->empty[ring.stage], ring.parity ^ 1);
      arrive_expecting(full, F::kStageBytes);
#pragma unroll
      for (int i = 0; i < NA; ++i) copy_chunk(keys + i * kKeyChunk, maps.k, full, i * kChunkColumns, kv, tile * kKeys, sequence);
      if constexpr (NB > 0) copy_chunk(keys + NA * kKeyChunk, maps.k_shared, full, 0, 0, tile * kKeys, sequence);
#pragma unroll
      for (int i = 0; i < NV; ++i) copy_chunk(values + i * kKeyChunk, maps.v, full, i * kChunkColumns, kv, tile * kKeys, sequence);
      ring.advance();
    }
    rows.advance();
  }
}

/// scores = rows keys^T over `Chunks` chunks.
template <int Chunks>
__device__ __forceinline__ void multiply_rows(float (&scores)[32], uint32_t rows, uint32_t keys) {
#pragma unroll
  for (int step = 0; step < 4 * Chunks; ++step) {
    const uint64_t a = rows_operand(rows + step / 4 * kRowChunk + step % 4 * 32), b = rows_operand(keys + step / 4 * kKeyChunk + step % 4 * 32);
    if (step == 0) {
      multiply_first(scores, a, b);
    } else {
      multiply(scores, a, b);
    }
  }
}

template <int N>
__device__ __forceinline__ void multiply_keys(float (&sums)[N], const uint32_t (&d_scores)[16], uint32_t keys) {
#pragma unroll
  for (int step = 0; step < kKeys / 16; ++step) multiply_registers(sums, d_scores + 4 * step, columns_operand(keys + step * 2048, kKeyChunk));
}

/// A warpgroup's 64 queries of an item. `queries` and `d_outputs`: their addresses; `statistics`: of the item's rows.
template <int NA, int NB, int NV>
__device__ __forceinline__ void differentiate(const AttentionSizes& sizes, Shared* barriers, const Item& item, uint32_t queries, uint32_t d_outputs,
                                              uint32_t stages, Ring<kStages>& ring, uint64_t* rows_empty, const float* statistics, int group,
                                              const Strided<bf16>& d_q) {
  using F = Form<NA, NB, NV>;
  const int thread = static_cast<int>(threadIdx.x) % kGroupThreads, lane = thread % 32, of_item = group * 64 + thread / 32 * 16 + lane / 4;
  const int row = item.query + of_item;  // and row + 8
  const int begin[2] = {sizes.begin_of(row), sizes.begin_of(row + 8)}, end[2] = {sizes.end_of(row), sizes.end_of(row + 8)};
  const int all_begin = sizes.begin_of(item.query + kTileRows - 1), all_end = sizes.end_of(item.query);  // keys that every row of the item sees
  const float scale = sizes.scale * kLog2E;
  float own[NA * 32], shared[32];
  clear(own);
  clear(shared);
  hold(own);  // zeroed here, not between products
  hold(shared);
  float scores[32], d_scores[32];
  uint32_t packed[16];
  float lse[2], delta[2];
  const auto probabilities = [&](int tile) {  // of the scores
    const int j0 = tile * kKeys;
    if (j0 < all_begin || j0 + kKeys > all_end) {
#pragma unroll
      for (int i = 0; i < 32; ++i) {
        const int j = j0 + i / 4 * 8 + lane % 4 * 2 + i % 2, r = i / 2 % 2;
        if (j < begin[r] || j >= end[r]) scores[i] = -INFINITY;
      }
    }
#pragma unroll
    for (int i = 0; i < 32; ++i) scores[i] = exp2_fast(scores[i] * scale - lse[i / 2 % 2]);
  };
  const auto differentiate_scores = [&] {  // p to d_s
#pragma unroll
    for (int i = 0; i < 32; ++i) scores[i] *= d_scores[i] - delta[i / 2 % 2];
  };
  const auto add_keys = [&](uint32_t keys) {
    multiply_keys(own, packed, keys);
    if constexpr (NB > 0) multiply_keys(shared, packed, keys + NA * kKeyChunk);
    product_commit();
  };
  if (item.first_tile < item.last_tile) {
    const float* const of_row = statistics + of_item / kStatisticsTile * 2 * kStatisticsTile + of_item % kStatisticsTile;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      lse[r] = of_row[8 * r];
      delta[r] = of_row[kStatisticsTile + 8 * r];
    }
    wait(&barriers->full[ring.stage], ring.parity);
    const uint32_t first_keys = stages + ring.stage * F::kStageBytes;
    product_fence();
    multiply_rows<NA + NB>(scores, fresh(queries), first_keys);
    product_commit();
    multiply_rows<NV>(d_scores, fresh(d_outputs), first_keys + (NA + NB) * kKeyChunk);
    product_commit();
    product_wait<1>();
    hold(scores);
    probabilities(item.last_tile - 1);
    product_wait<0>();
    hold(d_scores);
    differentiate_scores();
    pack(scores, packed);
    for (int tile = item.last_tile - 2; tile >= item.first_tile; --tile) {
      const int previous = ring.stage;
      ring.advance();
      const uint32_t keys = stages + ring.stage * F::kStageBytes;
      wait(&barriers->full[ring.stage], ring.parity);
      hold(packed);
      hold(own);
      hold(shared);
      product_fence();
      multiply_rows<NA + NB>(scores, fresh(queries), keys);
      product_commit();
      multiply_rows<NV>(d_scores, fresh(d_outputs), keys + (NA + NB) * kKeyChunk);
      product_commit();
      add_keys(stages + previous * F::kStageBytes);
      product_wait<2>();
      hold(scores);
      probabilities(tile);
      product_wait<1>();
      hold(d_scores);
      differentiate_scores();  // while d_s of the tile before is multiplied
      hold(scores);
      product_wait<0>();
      hold(own);
      hold(shared);
      hold(packed);
      if (lane == 0) arrive(&barriers->empty[previous]);
      pack(scores, packed);
    }
    if (lane == 0) arrive(rows_empty);  // nothing reads the rows any more
    hold(packed);
    product_fence();
    add_keys(stages + ring.stage * F::kStageBytes);
    product_wait<0>();
    if (lane == 0) arrive(&barriers->empty[ring.stage]);
    ring.advance();
  } else {
    __syncwarp();  // all lanes know the item
    if (lane == 0) arrive(rows_empty);
  }
  hold(own);
  hold(shared);
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int t = row + 8 * r;
    if (t >= sizes.tokens) continue;
    bf16* const to = d_q.at(std::int64_t{item.sequence} * sizes.tokens + t, item.head);
#pragma unroll
    for (int i = 0; i < NA * 8; ++i) {
      store_pair(to, i * 8 + lane % 4 * 2, sizes.key_width, own[4 * i + 2 * r] * sizes.scale, own[4 * i + 2 * r + 1] * sizes.scale);
    }
    if constexpr (NB > 0) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        store_pair(to + sizes.key_width, i * 8 + lane % 4 * 2, sizes.shared_width, shared[4 * i + 2 * r] * sizes.scale,
                   shared[4 * i + 2 * r + 1] * sizes.scale);
      }
    }
  }
}

template <int NA, int NB, int NV>
__global__ void __launch_bounds__(kThreads, 1) queries_kernel(const __grid_constant__ Maps maps, const __grid_constant__ AttentionSizes sizes,
                                                              const float* statistics, Strided<bf16> d_q, const Items items) {
  extern __shared__ __align__(1024) unsigned char memory[];
  using F = Form<NA, NB, NV>;
  auto* const shared = reinterpret_cast<Shared*>(memory + F::kTileBytes);
  const uint32_t base = shared_address(memory);
  if (threadIdx.x == 0) {
    for (int buffer = 0; buffer < F::kRowBuffers; ++buffer) {
      init_barrier(&shared->rows_full[buffer], 1);
      init_barrier(&shared->rows_empty[buffer], kConsumerWarps);
    }
    for (int stage = 0; stage < kStages; ++stage) {
      init_barrier(&shared->full[stage], 1);
      init_barrier(&shared->empty[stage], kConsumerWarps);
    }
    publish_barriers();
  }
  __syncthreads();
  if (threadIdx.x < kGroupThreads) {
    give_registers<kOfLoader>();
    if (threadIdx.x == 0) load<NA, NB, NV>(sizes, maps, shared, base, statistics, items);
  } else {
    take_registers<kOfMultipliers>();
    const int group = multiplying_group();
    const uint32_t stages = base + F::kRowBuffers * F::kRowBytes;
    Ring<kStages> ring;
    for (Ring<F::kRowBuffers> rows;; rows.advance()) {
      wait(&shared->rows_full[rows.stage], rows.parity);
      const int index = shared->item[rows.stage];
      if (index >= items.count) return;
      const uint32_t queries = base + rows.stage * F::kRowBytes + group * 64 * kChunkRowBytes;
      differentiate<NA, NB, NV>(sizes, shared, Item(sizes, index), queries, queries + (NA + NB) * kRowChunk, stages, ring,
                                &shared->rows_empty[rows.stage], shared->statistics[rows.stage], group, d_q);
    }
  }
}

template <int NA, int NB, int NV>
void start(Stream& stream, const FlashAttentionBackward& args, const float* statistics) {
  const AttentionSizes sizes(args);
  const ConstHeads own = columns_of(args.q, 0, args.k.width), rotated = columns_of(args.q, args.k.width, args.q.width - args.k.width);
  const Maps maps{heads_map(own, args.batch, kTileRows),      NB > 0 ? heads_map(rotated, args.batch, kTileRows) : CUtensorMap{},
                  heads_map(args.d_o, args.batch, kTileRows), heads_map(args.k, args.batch, kKeys),
                  NB > 0 ? heads_map(args.k_shared, args.batch, kKeys) : CUtensorMap{}, heads_map(args.v, args.batch, kKeys)};
  constexpr int kBytes = Form<NA, NB, NV>::kTileBytes + static_cast<int>(sizeof(Shared));
  Tensor taken = Tensor::empty({1}, DType::kI32, stream.device());
  fill_zero(stream, taken.view());
  const Items items{(sizes.tokens + kTileRows - 1) / kTileRows * sizes.heads * sizes.batch, taken.as<std::int32_t>()};
  const int blocks = std::min(items.count, num_multiprocessors(stream.device().index));
  allow_shared_memory(queries_kernel<NA, NB, NV>, kBytes, args.kName);
  queries_kernel<NA, NB, NV>
      <<<static_cast<unsigned>(blocks), kThreads, kBytes, native(stream)>>>(maps, sizes, statistics, strided<bf16>(args.d_q), items);
  check_launch(args.kName);
}

}  // namespace

void hopper_backward_queries(Stream& stream, const FlashAttentionBackward& args, const float* statistics) {
  visit_chunks(args, [&]<int NA, int NB, int NV>() { start<NA, NB, NV>(stream, args, statistics); });
}

}  // namespace hadal::kernels::cuda
