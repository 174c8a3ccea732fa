// Gradients of keys and values on Hopper, bf16: 128 keys of a head, with their values, against tiles of 64 queries (48 where registers
// would not hold more beside the sums) of every head of the group. One warpgroup loads, two multiply, 64 keys each, all transposed:
// s^T = k q^T and d_p^T = v d_o^T, so that p^T and d_s^T stay in registers as operands of d_v += p^T d_o and d_k += d_s^T q.
// Blocks walk from the last queries to the first: those that run at the same time read the same queries, each as far as its keys are
// seen. Where keys are many, a block owns its rows of d_k and d_v and only the share in d_k_shared is summed over heads afterwards, in
// their order; where they are few, the queries are cut into parts (attention_key_parts.h).
#include "kernels/cuda/attention_key_parts.h"
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

static_assert(kTileRows == kKeyTile);
constexpr int kStages = 3;
constexpr int kTwoRounds = 272;  ///< blocks, and some more
constexpr int kRowChunk = kTileRows * kChunkRowBytes;  ///< bytes of a chunk of keys or values

/// Columns: NA chunks of k, NB of k_shared, NV of v. A stage is the queries' chunks, then those of d_o.
template <int NA, int NB, int NV>
struct Form {
  static constexpr int kChunks = NA + NB + NV;
  static constexpr int kQueries = key_gradient_queries(kChunks);  ///< of a tile
  static constexpr int kQueryChunk = kQueries * kChunkRowBytes;
  static constexpr int kStatisticsBytes = 2 * kQueries * static_cast<int>(sizeof(float));
  static constexpr int kTileBytes = kChunks * (kRowChunk + kStages * kQueryChunk);
};

struct Maps {
  CUtensorMap k, k_shared, v, q, q_shared, d_o;
};
struct Shared {
  float statistics[kStages][2 * 64];
  uint64_t rows, full[kStages], empty[kStages];
};
/// Addresses in shared memory.
struct Tiles {
  uint32_t keys, values, stages;
};
/// What a block works on: keys from `key` on of key head `kv`, query tiles [first_tile, last_tile) of heads [first_head, last_head).
struct Work {
  int key, kv, sequence, part, first_tile, last_tile, first_head, last_head;
};

template <int NA, int NB, int NV>
__device__ __forceinline__ void load(const AttentionSizes& sizes, const Maps& maps, Shared* shared, const Tiles& at, const Work& work,
                                     const float* statistics) {
  using F = Form<NA, NB, NV>;
  constexpr int kChunks = F::kChunks, kQueries = F::kQueries, kQueryChunk = F::kQueryChunk;
  if (work.first_tile >= work.last_tile) return;  // nobody would wait for the rows
  arrive_expecting(&shared->rows, kChunks * kRowChunk);
#pragma unroll
  for (int i = 0; i < NA; ++i) copy_chunk(at.keys + i * kRowChunk, maps.k, &shared->rows, i * kChunkColumns, work.kv, work.key, work.sequence);
  if constexpr (NB > 0) copy_chunk(at.keys + NA * kRowChunk, maps.k_shared, &shared->rows, 0, 0, work.key, work.sequence);
#pragma unroll
  for (int i = 0; i < NV; ++i) copy_chunk(at.values + i * kRowChunk, maps.v, &shared->rows, i * kChunkColumns, work.kv, work.key, work.sequence);
  Ring<kStages> ring;
  const int per_head = 2 * padded_tokens(sizes.tokens);
  for (int tile = work.last_tile - 1; tile >= work.first_tile; --tile) {
    const int query = tile * kQueries;
    const float* of_tile = statistics + statistics_at(sizes, work.sequence, work.first_head, query);
    for (int head = work.first_head; head < work.last_head; ++head) {
      uint64_t* const full = &shared->full[ring.stage];
      const uint32_t queries = at.stages + ring.stage * kChunks * kQueryChunk, d_outputs = queries + (NA + NB) * kQueryChunk;
      wait(&shared->empty[ring.stage], ring.parity ^ 1);
      arrive_expecting(full, kChunks * kQueryChunk + F::kStatisticsBytes);
#pragma unroll
      for (int i = 0; i < NA; ++i) copy_chunk(queries + i * kQueryChunk, maps.q, full, i * kChunkColumns, head, query, work.sequence);
      if constexpr (NB > 0) copy_chunk(queries + NA * kQueryChunk, maps.q_shared, full, 0, head, query, work.sequence);
      copy_bytes(shared_address(shared->statistics[ring.stage]), of_tile, F::kStatisticsBytes, full);
      of_tile += per_head;
#pragma unroll
      for (int i = 0; i < NV; ++i) copy_chunk(d_outputs + i * kQueryChunk, maps.d_o, full, i * kChunkColumns, head, query, work.sequence);
      ring.advance();
    }
  }
}

/// scores = rows queries^T over `Chunks` chunks.
template <int Chunks, int N>
__device__ __forceinline__ void multiply_rows(float (&scores)[N], uint32_t rows, uint32_t queries) {
  constexpr int kQueryChunk = 2 * N * kChunkRowBytes;
#pragma unroll
  for (int step = 0; step < 4 * Chunks; ++step) {
    const uint64_t a = rows_operand(rows + step / 4 * kRowChunk + step % 4 * 32);
    const uint64_t b = rows_operand(queries + step / 4 * kQueryChunk + step % 4 * 32);
    if (step == 0) {
      multiply_first(scores, a, b);
    } else {
      multiply(scores, a, b);
    }
  }
}

template <int N, int M>
__device__ __forceinline__ void multiply_queries(float (&sums)[N], const uint32_t (&weights)[M], uint32_t queries) {
  constexpr int kQueryChunk = 4 * M * kChunkRowBytes;
#pragma unroll
  for (int step = 0; step < M / 4; ++step) {
    multiply_registers(sums, weights + 4 * step, columns_operand(queries + step * 2048, kQueryChunk));
  }
}

/// Where the results go.
struct Gradients {
  Strided<bf16> d_k, d_v;
  float* d_k_shared;  ///< [Hk, B * Sk, ws]
  float* partial;     ///< where there are parts, instead of all of these: [parts, B * Sk, Hk, partial_width]
  int partial_width;
  bool add;
};

/// Rows r of `sums` (d[4 i + 2 r ..]) to a row of `width` columns.
template <int N>
__device__ __forceinline__ void store_row(bf16* row, int width, int r, const float (&sums)[N], float factor, bool add) {
#pragma unroll
  for (int i = 0; i < N / 4; ++i) {
    const int column = i * 8 + static_cast<int>(threadIdx.x) % 4 * 2;
    float x = sums[4 * i + 2 * r] * factor, y = sums[4 * i + 2 * r + 1] * factor;
    if (add && column < width) {
      x += __bfloat162float(row[column]);
      y += __bfloat162float(row[column + 1]);
    }
    store_pair(row, column, width, x, y);
  }
}

template <int N>
__device__ __forceinline__ void store_row(float* row, int width, int r, const float (&sums)[N], float factor) {
#pragma unroll
  for (int i = 0; i < N / 4; ++i) {
    const int column = i * 8 + static_cast<int>(threadIdx.x) % 4 * 2;
    if (column < width) *reinterpret_cast<float2*>(row + column) = make_float2(sums[4 * i + 2 * r] * factor, sums[4 * i + 2 * r + 1] * factor);
  }
}

/// A warpgroup's 64 keys.
template <int NA, int NB, int NV>
__device__ __forceinline__ void differentiate(const AttentionSizes& sizes, Shared* shared, const Tiles& at, const Work& work, int group,
                                              const Gradients& to) {
  using F = Form<NA, NB, NV>;
  constexpr int kChunks = F::kChunks, kQueries = F::kQueries, kQueryChunk = F::kQueryChunk;
  const int thread = static_cast<int>(threadIdx.x) % kGroupThreads, lane = thread % 32;
  const int key = work.key + group * 64 + thread / 32 * 16 + lane / 4;  // and key + 8
  // Queries that see every key of the block.
  const int all_first = sizes.first_query(work.key + kTileRows - 1), all_last = sizes.last_query(work.key);
  const float scale = sizes.scale * kLog2E;
  const uint32_t keys = at.keys + group * 64 * kChunkRowBytes, values = at.values + group * 64 * kChunkRowBytes;
  float own[NA * 32], rotated[32], d_values[NV * 32];
  clear(own);
  clear(rotated);
  clear(d_values);
  hold(own);  // zeroed here, not between products
  hold(rotated);
  hold(d_values);
  float scores[kQueries / 2];
  uint32_t probabilities[kQueries / 4], d_scores[kQueries / 4];
  const int heads = work.last_head - work.first_head, all = (work.last_tile - work.first_tile) * heads;
  Ring<kStages> ring;
  const auto probabilities_of = [&](int tile) {  // of the scores, packed
    const int t0 = tile * kQueries;
    if (t0 < all_first || t0 + kQueries > all_last) {
      const int first[2] = {sizes.first_query(key), sizes.first_query(key + 8)}, last[2] = {sizes.last_query(key), sizes.last_query(key + 8)};
#pragma unroll
      for (int i = 0; i < kQueries / 2; ++i) {
        const int t = t0 + i / 4 * 8 + lane % 4 * 2 + i % 2, r = i / 2 % 2;
        if (t < first[r] || t >= last[r]) scores[i] = -INFINITY;
      }
    }
    const float* const lse = shared->statistics[ring.stage] + lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < kQueries / 8; ++i) {
      const float2 base = *reinterpret_cast<const float2*>(lse + i / 2 * 2 * kStatisticsTile + i % 2 * 8);
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        scores[4 * i + 2 * r] = exp2_fast(scores[4 * i + 2 * r] * scale - base.x);
        scores[4 * i + 2 * r + 1] = exp2_fast(scores[4 * i + 2 * r + 1] * scale - base.y);
      }
    }
    pack(scores, probabilities);
  };
  const auto differentiate_scores = [&] {  // d_p^T to packed d_s^T
    const float* const delta = shared->statistics[ring.stage] + kStatisticsTile + lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < kQueries / 8; ++i) {
      const float2 base = *reinterpret_cast<const float2*>(delta + i / 2 * 2 * kStatisticsTile + i % 2 * 8);
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const float2 p = __bfloat1622float2(reinterpret_cast<const __nv_bfloat162&>(probabilities[2 * i + r]));
        scores[4 * i + 2 * r] = p.x * (scores[4 * i + 2 * r] - base.x);
        scores[4 * i + 2 * r + 1] = p.y * (scores[4 * i + 2 * r + 1] - base.y);
      }
    }
    pack(scores, d_scores);
  };
  const auto add_queries = [&](uint32_t queries) {
    multiply_queries(own, d_scores, queries);
    if constexpr (NB > 0) multiply_queries(rotated, d_scores, queries + NA * kQueryChunk);
    product_commit();
  };
  // d_p^T and d_v of a stage, up to d_s^T.
  const auto use_d_outputs = [&](uint32_t d_outputs) {
    hold(probabilities);
    product_fence();
    multiply_rows<NV>(scores, fresh(values), d_outputs);
    product_commit();
    multiply_queries(d_values, probabilities, d_outputs);
    product_commit();
    product_wait<1>();
    hold(scores);
  };
  if (all > 0) {
    wait(&shared->rows, 0);
    wait(&shared->full[0], 0);
    product_fence();
    multiply_rows<NA + NB>(scores, keys, at.stages);
    product_commit();
    product_wait<0>();
    hold(scores);
    int tile = work.last_tile - 1, heads_left = heads;  // of the tile
    probabilities_of(tile);
    use_d_outputs(at.stages + (NA + NB) * kQueryChunk);
    differentiate_scores();
    product_wait<0>();
    hold(d_values);
    for (int i = 1; i < all; ++i) {
      const int previous = ring.stage;
      ring.advance();
      if (--heads_left == 0) {
        heads_left = heads;
        --tile;
      }
      const uint32_t queries = at.stages + ring.stage * kChunks * kQueryChunk;
      wait(&shared->full[ring.stage], ring.parity);
      hold(d_scores);
      hold(own);
      hold(rotated);
      product_fence();
      multiply_rows<NA + NB>(scores, fresh(keys), queries);
      product_commit();
      add_queries(at.stages + previous * kChunks * kQueryChunk);
      product_wait<1>();
      hold(scores);
      probabilities_of(tile);
      use_d_outputs(queries + (NA + NB) * kQueryChunk);
      hold(d_scores);
      if (lane == 0) arrive(&shared->empty[previous]);
      differentiate_scores();
      product_wait<0>();
      hold(d_values);
      hold(probabilities);
    }
    hold(d_scores);
    product_fence();
    add_queries(at.stages + ring.stage * kChunks * kQueryChunk);
  }
  product_wait<0>();
  hold(own);
  hold(rotated);
  hold(d_values);
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int j = key + 8 * r;
    if (j >= sizes.keys) continue;
    const std::int64_t token = std::int64_t{work.sequence} * sizes.keys + j, tokens = std::int64_t{sizes.batch} * sizes.keys;
    if (to.partial != nullptr) {
      float* const row = to.partial + ((work.part * tokens + token) * sizes.key_heads + work.kv) * to.partial_width;
      store_row(row, sizes.key_width, r, own, sizes.scale);
      store_row(row + sizes.key_width, sizes.value_width, r, d_values, 1.0f);
      if constexpr (NB > 0) store_row(row + sizes.key_width + sizes.value_width, sizes.shared_width, r, rotated, sizes.scale);
      continue;
    }
    store_row(to.d_k.at(token, work.kv), sizes.key_width, r, own, sizes.scale, to.add);
    store_row(to.d_v.at(token, work.kv), sizes.value_width, r, d_values, 1.0f, to.add);
    if constexpr (NB > 0) {
      store_row(to.d_k_shared + (work.kv * tokens + token) * sizes.shared_width, sizes.shared_width, r, rotated, sizes.scale);
    }
  }
}

template <int NA, int NB, int NV>
__global__ void __launch_bounds__(kThreads, 1) keys_kernel(const __grid_constant__ Maps maps, const __grid_constant__ AttentionSizes sizes,
                                                           const __grid_constant__ KeyParts parts, const float* statistics,
                                                           const __grid_constant__ Gradients to) {
  extern __shared__ unsigned char memory[];
  unsigned char* const tiles = aligned_memory(memory);
  using F = Form<NA, NB, NV>;
  auto* const shared = reinterpret_cast<Shared*>(tiles + F::kTileBytes);
  const uint32_t base = shared_address(tiles);
  const Tiles at{base, base + (NA + NB) * kRowChunk, base + F::kChunks * kRowChunk};
  if (threadIdx.x == 0) {
    init_barrier(&shared->rows, 1);
    for (int stage = 0; stage < kStages; ++stage) {
      init_barrier(&shared->full[stage], 1);
      init_barrier(&shared->empty[stage], kConsumerWarps);
    }
    publish_barriers();
  }
  __syncthreads();
  const int key_tiles = (sizes.keys + kTileRows - 1) / kTileRows;
  // The first keys are seen by most queries. Sections of two rounds and more, so that the heavy blocks of the last one start early.
  const BlockTile block(static_cast<int>(blockIdx.x), key_tiles, sizes.key_heads * parts.count(), sizes.batch, max(16, kTwoRounds / key_tiles));
  const int key = block.tile * kTileRows, kv = block.head / parts.count();
  const int part = parts.count() - 1 - block.head % parts.count(), share = part % parts.heads;  // the last queries see most keys
  const TileSpan span = parts.seen_in(parts.seen(sizes, key), part / parts.heads);
  const Work work{.key = key,
                  .kv = kv,
                  .sequence = block.sequence,
                  .part = part,
                  .first_tile = span.first,
                  .last_tile = span.last,
                  .first_head = kv * sizes.group + parts.first_head(share, sizes.group),
                  .last_head = kv * sizes.group + parts.first_head(share + 1, sizes.group)};
  if (to.partial != nullptr && work.first_tile >= work.last_tile) return;  // sum_key_parts does not read its place
  if (threadIdx.x < kGroupThreads) {
    give_registers<kLoaderRegisters>();
    if (threadIdx.x == 0) load<NA, NB, NV>(sizes, maps, shared, at, work, statistics);
  } else {
    take_registers<kMultiplierRegisters>();
    differentiate<NA, NB, NV>(sizes, shared, at, work, multiplying_group(), to);
  }
}

template <int NA, int NB, int NV>
void start(Stream& stream, const FlashAttentionBackward& args, const float* statistics, float* shared_sums) {
  constexpr int kQueries = Form<NA, NB, NV>::kQueries, kBytes = Form<NA, NB, NV>::kTileBytes + 1024 + static_cast<int>(sizeof(Shared));
  const AttentionSizes sizes(args);
  const KeyParts parts = key_parts(sizes, kQueries);
  const bool whole = parts.count() == 1;
  const ConstHeads own = columns_of(args.q, 0, args.k.width), rotated = columns_of(args.q, args.k.width, args.q.width - args.k.width);
  const Maps maps{heads_map(args.k, args.batch, kTileRows), NB > 0 ? heads_map(args.k_shared, args.batch, kTileRows) : CUtensorMap{},
                  heads_map(args.v, args.batch, kTileRows), heads_map(own, args.batch, kQueries),
                  NB > 0 ? heads_map(rotated, args.batch, kQueries) : CUtensorMap{}, heads_map(args.d_o, args.batch, kQueries)};
  Tensor partial;
  if (!whole) partial = Tensor::empty({parts.count(), args.k.tokens, args.k.heads, partial_width(sizes)}, DType::kF32, stream.device());
  const Gradients to{.d_k = strided<bf16>(args.d_k),
                     .d_v = strided<bf16>(args.d_v),
                     .d_k_shared = shared_sums,
                     .partial = whole ? nullptr : partial.as<float>(),
                     .partial_width = partial_width(sizes),
                     .add = args.add_to_keys};
  const int blocks = (sizes.keys + kTileRows - 1) / kTileRows * sizes.key_heads * parts.count() * sizes.batch;
  allow_shared_memory(keys_kernel<NA, NB, NV>, kBytes, args.kName);
  keys_kernel<NA, NB, NV><<<static_cast<unsigned>(blocks), kThreads, kBytes, native(stream)>>>(maps, sizes, parts, statistics, to);
  check_launch(args.kName);
  if (!whole) sum_key_parts(native(stream), args, parts, to.partial, shared_sums);
}

}  // namespace

void hopper_backward_keys(Stream& stream, const FlashAttentionBackward& args, const float* statistics, float* shared_sums) {
  visit_chunks(args, [&]<int NA, int NB, int NV>() { start<NA, NB, NV>(stream, args, statistics, shared_sums); });
}

}  // namespace hadal::kernels::cuda
