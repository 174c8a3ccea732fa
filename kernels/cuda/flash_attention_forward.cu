// Flash attention forward on Hopper, bf16: 128 queries of a head against tiles of 128 keys.
//
// One warpgroup loads, by bulk tensor copies: the queries once, keys and values through two rings. The keys' tile is put together
// in shared memory from [k | k_shared]. Two warpgroups multiply, 64 queries each. Within one, the scores of tile i + 1 are under
// way while tile i is multiplied with its values, and between them one takes exponentials while the other multiplies.
#include <algorithm>
#include <cmath>

#include "kernels/cuda/check.h"
#include "kernels/cuda/flash_attention_blocks.cuh"
#include "kernels/cuda/flash_attention_paths.h"
#include "kernels/cuda/heads_map.h"
#include "kernels/cuda/tile_copy.cuh"

namespace hadal::kernels::cuda {
namespace {

using namespace hopper;
using bf16 = __nv_bfloat16;

constexpr int kKeys = 128;    ///< of a tile
constexpr int kStages = 2;
constexpr int kTileChunk = kTileRows * kChunkRowBytes;  ///< bytes; of the queries, keys and values alike
constexpr int kTurn = 1;                                ///< named barriers: the turn of warpgroup i is kTurn + i

struct Maps {
  CUtensorMap q, q_shared, k, k_shared, v;
};

struct Barriers {
  uint64_t queries_full, queries_empty, keys_full[kStages], keys_empty[kStages], values_full[kStages], values_empty[kStages];
};

constexpr int shared_bytes(int key_chunks, int value_chunks) {
  return (key_chunks * (1 + kStages) + value_chunks * kStages) * kTileChunk + 1024 + static_cast<int>(sizeof(Barriers));
}

/// What a block of threads does next: 128 queries of a head and the key tiles that they see.
struct Item {
  int query, head, sequence, first_tile, last_tile;

  __device__ Item(const AttentionSizes& sizes, int index) {
    const int query_tiles = (sizes.tokens + kTileRows - 1) / kTileRows;
    const BlockTile block(index, query_tiles, sizes.heads, sizes.batch);
    head = block.head;
    sequence = block.sequence;
    query = (query_tiles - 1 - block.tile) * kTileRows;  // the last queries see most keys
    first_tile = sizes.begin_of(query) / kKeys;
    last_tile = (sizes.end_of(min(query + kTileRows, sizes.tokens) - 1) + kKeys - 1) / kKeys;
  }
};

/// The body for each item of this block of threads: `items` are dealt out in rows of a grid, every other row backwards, as they get smaller.
template <class Body>
__device__ __forceinline__ void for_each_item(const AttentionSizes& sizes, int items, const Body& body) {
  const int grid = static_cast<int>(gridDim.x), place = static_cast<int>(blockIdx.x);
  for (int row = 0; row * grid < items; ++row) {
    const int index = row * grid + (row % 2 == 0 ? place : grid - 1 - place);
    if (index < items) body(Item(sizes, index));
  }
}

/// Where the copies and products of one item end, those of the next go on.
struct Rings {
  Ring<1> queries;
  Ring<kStages> keys, values;
};

/// Columns: NA chunks of k, NB of k_shared, NV of v.
template <int NA, int NB, int NV>
__device__ void load(const Maps& maps, Barriers* barriers, uint32_t queries, uint32_t keys, uint32_t values, const Item& item, int kv, Rings& rings) {
  constexpr int kKeyBytes = (NA + NB) * kTileChunk, kValueBytes = NV * kTileChunk;
  const int query = item.query, head = item.head, sequence = item.sequence, first_tile = item.first_tile, last_tile = item.last_tile;
  if (first_tile >= last_tile) return;  // nobody would wait for the queries
  wait(&barriers->queries_empty, rings.queries.parity ^ 1);
  rings.queries.advance();
  arrive_expecting(&barriers->queries_full, kKeyBytes);
#pragma unroll
  for (int chunk = 0; chunk < NA; ++chunk) {
    copy_chunk(queries + chunk * kTileChunk, maps.q, &barriers->queries_full, chunk * kChunkColumns, head, query, sequence);
  }
  if constexpr (NB > 0) copy_chunk(queries + NA * kTileChunk, maps.q_shared, &barriers->queries_full, 0, head, query, sequence);
  for (int tile = last_tile - 1; tile >= first_tile; --tile) {
    const uint32_t key_stage = keys + rings.keys.stage * kKeyBytes, value_stage = values + rings.values.stage * kValueBytes;
    uint64_t* const keys_full = &barriers->keys_full[rings.keys.stage];
    uint64_t* const values_full = &barriers->values_full[rings.values.stage];
    wait(&barriers->keys_empty[rings.keys.stage], rings.keys.parity ^ 1);
    arrive_expecting(keys_full, kKeyBytes);
#pragma unroll
    for (int chunk = 0; chunk < NA; ++chunk) {
      copy_chunk(key_stage + chunk * kTileChunk, maps.k, keys_full, chunk * kChunkColumns, kv, tile * kKeys, sequence);
    }
    if constexpr (NB > 0) copy_chunk(key_stage + NA * kTileChunk, maps.k_shared, keys_full, 0, 0, tile * kKeys, sequence);
    wait(&barriers->values_empty[rings.values.stage], rings.values.parity ^ 1);
    arrive_expecting(values_full, kValueBytes);
#pragma unroll
    for (int chunk = 0; chunk < NV; ++chunk) {
      copy_chunk(value_stage + chunk * kTileChunk, maps.v, values_full, chunk * kChunkColumns, kv, tile * kKeys, sequence);
    }
    rings.keys.advance();
    rings.values.advance();
  }
}

template <int Chunks>
__device__ __forceinline__ void multiply_keys(float (&scores)[64], uint32_t queries, uint32_t keys) {
#pragma unroll
  for (int step = 0; step < 4 * Chunks; ++step) {
    const uint32_t at = step / 4 * kTileChunk + step % 4 * 32;
    if (step == 0) {
      multiply_first(scores, rows_operand(queries + at), rows_operand(keys + at));
    } else {
      multiply(scores, rows_operand(queries + at), rows_operand(keys + at));
    }
  }
}

template <int NV>
__device__ __forceinline__ void multiply_values(float (&output)[NV * 32], const uint32_t (&probabilities)[32], uint32_t values) {
#pragma unroll
  for (int step = 0; step < kKeys / 16; ++step) {
    multiply_registers(output, probabilities + 4 * step, columns_operand(values + step * 2048, kTileChunk));
  }
}

/// Scores to probabilities; `most` and `sum` of the thread's two rows follow (sum: the thread's share). `factor`: of what was summed
/// before.
__device__ __forceinline__ void online_softmax(float (&scores)[64], float scale, float (&most)[2], float (&sum)[2], float (&factor)[2]) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float tile_most = most[r];
#pragma unroll
    for (int i = 0; i < 16; ++i) tile_most = fmaxf(tile_most, fmaxf(scores[4 * i + 2 * r], scores[4 * i + 2 * r + 1]));
    tile_most = row_max(tile_most);
    const float base = tile_most == -INFINITY ? 0.0f : tile_most * scale;
    factor[r] = exp2_fast(most[r] * scale - base);
    most[r] = tile_most;
    float tile_sum = 0;
#pragma unroll
    for (int i = 0; i < 16; ++i) {
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        float& x = scores[4 * i + 2 * r + c];
        x = exp2_fast(x * scale - base);
        tile_sum += x;
      }
    }
    sum[r] = sum[r] * factor[r] + tile_sum;
  }
}

/// A warpgroup's 64 queries of an item.
template <int NA, int NB, int NV>
__device__ __forceinline__ void attend(const AttentionSizes& sizes, Barriers* barriers, uint32_t queries, uint32_t keys, uint32_t values,
                                       const Item& item, int group, const Strided<bf16>& o, float* lse, Rings& rings) {
  constexpr int kChunks = NA + NB, kKeyBytes = kChunks * kTileChunk, kValueBytes = NV * kTileChunk;
  const int thread = static_cast<int>(threadIdx.x) % kGroupThreads, lane = thread % 32;
  const int query = item.query, head = item.head, sequence = item.sequence, first_tile = item.first_tile, last_tile = item.last_tile;
  const int row = query + group * 64 + thread / 32 * 16 + lane / 4;  // and row + 8
  const int begin[2] = {sizes.begin_of(row), sizes.begin_of(row + 8)}, end[2] = {sizes.end_of(row), sizes.end_of(row + 8)};
  const int all_begin = sizes.begin_of(query + kTileRows - 1), all_end = sizes.end_of(query);  // keys that every row of the block sees
  const float scale = sizes.scale * kLog2E;
  float output[NV * 32], most[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0}, factor[2];
  clear(output);
  hold(output);  // zeroed here, not between products
  float scores[64];
  uint32_t probabilities[32];
  const uint32_t own_queries = queries + group * 64 * kChunkRowBytes;
  const auto my_turn = [&] { asm volatile("bar.sync %0, 256;" ::"r"(kTurn + group) : "memory"); };
  const auto your_turn = [&] { asm volatile("bar.arrive %0, 256;" ::"r"(kTurn + 1 - group) : "memory"); };
  const auto mask = [&](int tile) {
    const int j0 = tile * kKeys;
    if (j0 >= all_begin && j0 + kKeys <= all_end) return;
#pragma unroll
    for (int i = 0; i < 64; ++i) {
      const int j = j0 + i / 4 * 8 + lane % 4 * 2 + i % 2, r = i / 2 % 2;
      if (j < begin[r] || j >= end[r]) scores[i] = -INFINITY;
    }
  };
  const auto release = [&](uint64_t* barrier) {
    if (lane == 0) arrive(barrier);
  };

  Ring<kStages>&key_ring = rings.keys, &value_ring = rings.values;
  if (first_tile < last_tile) {
    wait(&barriers->queries_full, rings.queries.parity);
    rings.queries.advance();
    wait(&barriers->keys_full[key_ring.stage], key_ring.parity);
    my_turn();
    product_fence();
    multiply_keys<kChunks>(scores, own_queries, keys + key_ring.stage * kKeyBytes);
    product_commit();
    your_turn();
    product_wait<0>();
    hold(scores);
    release(&barriers->keys_empty[key_ring.stage]);
    key_ring.advance();
    mask(last_tile - 1);
    online_softmax(scores, scale, most, sum, factor);
    pack(scores, probabilities);
    for (int tile = last_tile - 2; tile >= first_tile; --tile) {
      wait(&barriers->keys_full[key_ring.stage], key_ring.parity);
      my_turn();
      hold(scores);
      hold(output);
      hold(probabilities);
      product_fence();
      multiply_keys<kChunks>(scores, own_queries, keys + key_ring.stage * kKeyBytes);
      product_commit();
      wait(&barriers->values_full[value_ring.stage], value_ring.parity);
      multiply_values<NV>(output, probabilities, values + value_ring.stage * kValueBytes);
      product_commit();
      your_turn();
      product_wait<1>();
      hold(scores);
      release(&barriers->keys_empty[key_ring.stage]);
      key_ring.advance();
      mask(tile);
      online_softmax(scores, scale, most, sum, factor);
      product_wait<0>();
      hold(output);
      hold(probabilities);
      release(&barriers->values_empty[value_ring.stage]);
      value_ring.advance();
#pragma unroll
      for (int i = 0; i < NV * 32; ++i) output[i] *= factor[i / 2 % 2];
      pack(scores, probabilities);
    }
    release(&barriers->queries_empty);
    wait(&barriers->values_full[value_ring.stage], value_ring.parity);
    hold(output);
    hold(probabilities);
    product_fence();
    multiply_values<NV>(output, probabilities, values + value_ring.stage * kValueBytes);
    product_commit();
    product_wait<0>();
    hold(output);
    release(&barriers->values_empty[value_ring.stage]);
    value_ring.advance();
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int t = row + 8 * r;
    const float total = row_sum(sum[r]), inverse = total == 0 ? 0.0f : 1.0f / total;
    const std::int64_t token = std::int64_t{sequence} * sizes.tokens + t;
    bf16* const to = o.at(token, head);
#pragma unroll
    for (int i = 0; i < NV * 8; i += 4) {
      uint32_t words[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) words[j] = pack_pair(output[4 * (i + j) + 2 * r] * inverse, output[4 * (i + j) + 2 * r + 1] * inverse);
      const uint4 columns = exchange_in_quad(words);
      const int column = (i + lane % 4) * 8;
      if (t < sizes.tokens && column < sizes.value_width) *reinterpret_cast<uint4*>(to + column) = columns;
    }
    if (t < sizes.tokens && lane % 4 == 0) lse[token * sizes.heads + head] = total == 0 ? -INFINITY : most[r] * sizes.scale + logf(total);
  }
}

template <int NA, int NB, int NV>
__global__ void __launch_bounds__(kThreads, 1)
    forward_kernel(const __grid_constant__ Maps maps, const __grid_constant__ AttentionSizes sizes, int items, Strided<bf16> o, float* lse) {
  extern __shared__ unsigned char memory[];
  unsigned char* const tiles = aligned_memory(memory);
  constexpr int kKeyBytes = (NA + NB) * kTileChunk, kValueBytes = NV * kTileChunk;
  auto* const barriers = reinterpret_cast<Barriers*>(tiles + kKeyBytes * (1 + kStages) + kValueBytes * kStages);
  const uint32_t queries = shared_address(tiles), keys = queries + kKeyBytes, values = keys + kStages * kKeyBytes;
  if (threadIdx.x == 0) {
    init_barrier(&barriers->queries_full, 1);
    init_barrier(&barriers->queries_empty, kConsumerWarps);
    for (int stage = 0; stage < kStages; ++stage) {
      init_barrier(&barriers->keys_full[stage], 1);
      init_barrier(&barriers->values_full[stage], 1);
      init_barrier(&barriers->keys_empty[stage], kConsumerWarps);
      init_barrier(&barriers->values_empty[stage], kConsumerWarps);
    }
    publish_barriers();
  }
  __syncthreads();
  Rings rings;
  if (threadIdx.x < kGroupThreads) {
    give_registers<kLoaderRegisters>();
    if (threadIdx.x == 0) {
      for_each_item(sizes, items,
                    [&](const Item& item) { load<NA, NB, NV>(maps, barriers, queries, keys, values, item, item.head / sizes.group, rings); });
    }
  } else {
    take_registers<kMultiplierRegisters>();
    const int group = multiplying_group();
    if (group == 1) asm volatile("bar.arrive %0, 256;" ::"r"(kTurn) : "memory");  // the first turn is the other's
    for_each_item(sizes, items, [&](const Item& item) { attend<NA, NB, NV>(sizes, barriers, queries, keys, values, item, group, o, lse, rings); });
  }
}

template <int NA, int NB, int NV>
void start(Stream& stream, const FlashAttentionForward& args) {
  const AttentionSizes sizes(args);
  const ConstHeads own = columns_of(args.q, 0, args.k.width), shared = columns_of(args.q, args.k.width, args.q.width - args.k.width);
  const Maps maps{heads_map(own, args.batch, kTileRows), NB > 0 ? heads_map(shared, args.batch, kTileRows) : CUtensorMap{},
                  heads_map(args.k, args.batch, kKeys), NB > 0 ? heads_map(args.k_shared, args.batch, kKeys) : CUtensorMap{},
                  heads_map(args.v, args.batch, kKeys)};
  constexpr int kBytes = shared_bytes(NA + NB, NV);
  const int items = (sizes.tokens + kTileRows - 1) / kTileRows * sizes.heads * sizes.batch;
  // Of compressed keys there are few: the next item's queries and keys come while this one's output leaves.
  const int blocks = sizes.blocks ? std::min(items, num_multiprocessors(stream.device().index)) : items;
  allow_shared_memory(forward_kernel<NA, NB, NV>, kBytes, args.kName);
  forward_kernel<NA, NB, NV>
      <<<static_cast<unsigned>(blocks), kThreads, kBytes, native(stream)>>>(maps, sizes, items, strided<bf16>(args.o), args.lse.as<float>());
  check_launch(args.kName);
}

}  // namespace

void hopper_forward(Stream& stream, const FlashAttentionForward& args) {
  visit_chunks(args, [&]<int NA, int NB, int NV>() { start<NA, NB, NV>(stream, args); });
}

}  // namespace hadal::kernels::cuda
