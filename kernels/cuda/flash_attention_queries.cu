// Gradient of the queries on Hopper, bf16: 128 queries of a head, with their d_o, against tiles of 64 keys. One warpgroup loads, two
// multiply, 64 queries each: s = q k^T and d_p = d_o v^T, then d_q += d_s k with d_s from registers. A block owns its rows of d_q, so
// nothing is added across blocks. The product with d_s of one tile runs on under the scores of the next.
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

struct Maps {
  CUtensorMap q, q_shared, d_o, k, k_shared, v;
};
struct Barriers {
  uint64_t rows, full[kStages], empty[kStages];
};
/// Addresses in shared memory.
struct Tiles {
  uint32_t queries, d_outputs, stages;
};

/// Columns: NA chunks of k, NB of k_shared, NV of v. A stage is the keys' chunks, then the values'.
template <int NA, int NB, int NV>
__device__ __forceinline__ void load(const Maps& maps, Barriers* barriers, const Tiles& at, int query, int head, int kv, int sequence, int first_tile,
                                     int last_tile) {
  constexpr int kChunks = NA + NB + NV;
  if (first_tile >= last_tile) return;  // nobody would wait for the rows
  arrive_expecting(&barriers->rows, kChunks * kRowChunk);
#pragma unroll
  for (int i = 0; i < NA; ++i) copy_chunk(at.queries + i * kRowChunk, maps.q, &barriers->rows, i * kChunkColumns, head, query, sequence);
  if constexpr (NB > 0) copy_chunk(at.queries + NA * kRowChunk, maps.q_shared, &barriers->rows, 0, head, query, sequence);
#pragma unroll
  for (int i = 0; i < NV; ++i) copy_chunk(at.d_outputs + i * kRowChunk, maps.d_o, &barriers->rows, i * kChunkColumns, head, query, sequence);
  Ring<kStages> ring;
  for (int tile = last_tile - 1; tile >= first_tile; --tile) {
    uint64_t* const full = &barriers->full[ring.stage];
    const uint32_t keys = at.stages + ring.stage * kChunks * kKeyChunk, values = keys + (NA + NB) * kKeyChunk;
    wait(&barriers->empty[ring.stage], ring.parity ^ 1);
    arrive_expecting(full, kChunks * kKeyChunk);
#pragma unroll
    for (int i = 0; i < NA; ++i) copy_chunk(keys + i * kKeyChunk, maps.k, full, i * kChunkColumns, kv, tile * kKeys, sequence);
    if constexpr (NB > 0) copy_chunk(keys + NA * kKeyChunk, maps.k_shared, full, 0, 0, tile * kKeys, sequence);
#pragma unroll
    for (int i = 0; i < NV; ++i) copy_chunk(values + i * kKeyChunk, maps.v, full, i * kChunkColumns, kv, tile * kKeys, sequence);
    ring.advance();
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

/// A warpgroup's 64 queries.
template <int NA, int NB, int NV>
__device__ __forceinline__ void differentiate(const AttentionSizes& sizes, Barriers* barriers, const Tiles& at, int query, int first_tile,
                                              int last_tile, int group, const float* statistics, const Strided<bf16>& d_q, int head,
                                              int sequence) {
  constexpr int kChunks = NA + NB + NV;
  const int thread = static_cast<int>(threadIdx.x) % kGroupThreads, lane = thread % 32;
  const int row = query + group * 64 + thread / 32 * 16 + lane / 4;  // and row + 8
  const int begin[2] = {sizes.begin_of(row), sizes.begin_of(row + 8)}, end[2] = {sizes.end_of(row), sizes.end_of(row + 8)};
  const int all_begin = sizes.begin_of(query + kTileRows - 1), all_end = sizes.end_of(query);  // keys that every row of the block sees
  const float scale = sizes.scale * kLog2E;
  const float* const of_row = statistics + statistics_at(sizes, sequence, head, row);
  const float lse[2] = {of_row[0], of_row[8]}, delta[2] = {of_row[kStatisticsTile], of_row[kStatisticsTile + 8]};
  const uint32_t queries = at.queries + group * 64 * kChunkRowBytes, d_outputs = at.d_outputs + group * 64 * kChunkRowBytes;
  float own[NA * 32], shared[32];
  clear(own);
  clear(shared);
  hold(own);  // zeroed here, not between products
  hold(shared);
  float scores[32], d_scores[32];
  uint32_t packed[16];
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
  const auto differentiate_scores = [&] {
#pragma unroll
    for (int i = 0; i < 32; ++i) scores[i] *= d_scores[i] - delta[i / 2 % 2];
    pack(scores, packed);
  };
  const auto add_keys = [&](uint32_t keys) {
    multiply_keys(own, packed, keys);
    if constexpr (NB > 0) multiply_keys(shared, packed, keys + NA * kKeyChunk);
    product_commit();
  };
  if (first_tile < last_tile) {
    Ring<kStages> ring;
    wait(&barriers->rows, 0);
    wait(&barriers->full[0], 0);
    product_fence();
    multiply_rows<NA + NB>(scores, queries, at.stages);
    product_commit();
    multiply_rows<NV>(d_scores, d_outputs, at.stages + (NA + NB) * kKeyChunk);
    product_commit();
    product_wait<1>();
    hold(scores);
    probabilities(last_tile - 1);
    product_wait<0>();
    hold(d_scores);
    differentiate_scores();
    for (int tile = last_tile - 2; tile >= first_tile; --tile) {
      const int previous = ring.stage;
      ring.advance();
      const uint32_t keys = at.stages + ring.stage * kChunks * kKeyChunk;
      wait(&barriers->full[ring.stage], ring.parity);
      hold(packed);
      hold(own);
      hold(shared);
      product_fence();
      multiply_rows<NA + NB>(scores, fresh(queries), keys);
      product_commit();
      add_keys(at.stages + previous * kChunks * kKeyChunk);
      multiply_rows<NV>(d_scores, fresh(d_outputs), keys + (NA + NB) * kKeyChunk);
      product_commit();
      product_wait<2>();
      hold(scores);
      probabilities(tile);
      product_wait<0>();
      hold(d_scores);
      hold(own);
      hold(shared);
      hold(packed);
      if (lane == 0) arrive(&barriers->empty[previous]);
      differentiate_scores();
    }
    hold(packed);
    product_fence();
    add_keys(at.stages + ring.stage * kChunks * kKeyChunk);
  }
  product_wait<0>();
  hold(own);
  hold(shared);
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int t = row + 8 * r;
    if (t >= sizes.tokens) continue;
    bf16* const to = d_q.at(std::int64_t{sequence} * sizes.tokens + t, head);
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

constexpr int shared_bytes(int chunks) { return chunks * (kRowChunk + kStages * kKeyChunk) + 1024 + static_cast<int>(sizeof(Barriers)); }

template <int NA, int NB, int NV>
__global__ void __launch_bounds__(kThreads, 1) queries_kernel(const __grid_constant__ Maps maps, const __grid_constant__ AttentionSizes sizes,
                                                              const float* statistics, Strided<bf16> d_q) {
  extern __shared__ unsigned char memory[];
  unsigned char* const tiles = aligned_memory(memory);
  constexpr int kChunks = NA + NB + NV;
  auto* const barriers = reinterpret_cast<Barriers*>(tiles + kChunks * (kRowChunk + kStages * kKeyChunk));
  const uint32_t base = shared_address(tiles);
  const Tiles at{base, base + (NA + NB) * kRowChunk, base + kChunks * kRowChunk};
  if (threadIdx.x == 0) {
    init_barrier(&barriers->rows, 1);
    for (int stage = 0; stage < kStages; ++stage) {
      init_barrier(&barriers->full[stage], 1);
      init_barrier(&barriers->empty[stage], kConsumerWarps);
    }
    publish_barriers();
  }
  __syncthreads();
  const int query_tiles = (sizes.tokens + kTileRows - 1) / kTileRows;
  const BlockTile block(query_tiles, sizes.heads, sizes.batch);
  const int query = (query_tiles - 1 - block.tile) * kTileRows;  // the last queries see most keys
  const int first_tile = sizes.begin_of(query) / kKeys;
  const int last_tile = (sizes.end_of(min(query + kTileRows, sizes.tokens) - 1) + kKeys - 1) / kKeys;
  if (threadIdx.x < kGroupThreads) {
    give_registers<kLoaderRegisters>();
    if (threadIdx.x == 0) {
      load<NA, NB, NV>(maps, barriers, at, query, block.head, block.head / sizes.group, block.sequence, first_tile, last_tile);
    }
  } else {
    take_registers<kMultiplierRegisters>();
    const int group = multiplying_group();
    differentiate<NA, NB, NV>(sizes, barriers, at, query, first_tile, last_tile, group, statistics, d_q, block.head, block.sequence);
  }
}

template <int NA, int NB, int NV>
void start(cudaStream_t stream, const FlashAttentionBackward& args, const float* statistics) {
  const AttentionSizes sizes(args);
  const ConstHeads own = columns_of(args.q, 0, args.k.width), rotated = columns_of(args.q, args.k.width, args.q.width - args.k.width);
  const Maps maps{heads_map(own, args.batch, kTileRows),      NB > 0 ? heads_map(rotated, args.batch, kTileRows) : CUtensorMap{},
                  heads_map(args.d_o, args.batch, kTileRows), heads_map(args.k, args.batch, kKeys),
                  NB > 0 ? heads_map(args.k_shared, args.batch, kKeys) : CUtensorMap{}, heads_map(args.v, args.batch, kKeys)};
  constexpr int kBytes = shared_bytes(NA + NB + NV);
  const int blocks = (sizes.tokens + kTileRows - 1) / kTileRows * sizes.heads * sizes.batch;
  allow_shared_memory(queries_kernel<NA, NB, NV>, kBytes, args.kName);
  queries_kernel<NA, NB, NV><<<static_cast<unsigned>(blocks), kThreads, kBytes, stream>>>(maps, sizes, statistics, strided<bf16>(args.d_q));
  check_launch(args.kName);
}

}  // namespace

void hopper_backward_queries(cudaStream_t stream, const FlashAttentionBackward& args, const float* statistics) {
  visit_chunks(args, [&]<int NA, int NB, int NV>() { start<NA, NB, NV>(stream, args, statistics); });
}

}  // namespace hadal::kernels::cuda
