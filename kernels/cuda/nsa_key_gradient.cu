// d_k and d_v over selected blocks on Hopper. A block of threads owns 64 keys of one selection block and key head, with their values, in
// shared memory; the rows (token, head) that read the block come by nsa_key_rows.cuh into a ring, one warpgroup gathering them for two that
// multiply. These take turns at the tiles, all transposed: s^T = k q^T and d_p^T = v d_o^T have the keys as rows, so that p^T and d_s^T
// stay in registers as operands of d_v += p^T d_o and d_k += d_s^T q. Where heads come by 16, d_s is kept for d_q (nsa_query_sum.cu).
#include <algorithm>

#include "kernels/cuda/check.h"
#include "kernels/cuda/nsa_key_gradient.cuh"
#include "kernels/cuda/nsa_key_rows.cuh"
#include "kernels/cuda/nsa_query_sum.cuh"
#include "kernels/cuda/nsa_selected.cuh"

namespace hadal::kernels::cuda {
namespace {

using namespace hopper;

constexpr int kGroupThreads = 128, kThreads = 3 * kGroupThreads;  // the first warpgroup gathers
constexpr int kKeys = kMostKeys;
constexpr int kStages = 5;  // tiles in flight or in use
constexpr int kAhead = 4;   // tiles whose tokens are asked for before their rows
constexpr int kGatherRegisters = 56, kMultiplyRegisters = 224;
constexpr int kKeyChunk = kKeys * kChunkRowBytes;

template <int kWidth, int kValue>
struct Form {
  static constexpr int kRows = key_tile_rows(kWidth, kValue);  ///< of a tile
  static constexpr int kChunk = kRows * kChunkRowBytes;
  static constexpr int kKeyBytes = (kWidth + kValue) / 64 * kKeyChunk, kStageBytes = (kWidth + kValue) / 64 * kChunk;
  static constexpr int kTileBytes = kKeyBytes + kStages * kStageBytes;
  static constexpr int kGatherWarps = kRows / kGroupRows;
  static constexpr int kFirst = kWidth > 128 ? 128 : kWidth, kRest = kWidth - kFirst;  ///< columns of d_k in two registers' arrays
  static_assert(kStages * kStageBytes >= kKeys * (kWidth > kValue ? kWidth : kValue) * 2 * static_cast<int>(sizeof(float)));
};

template <int kWidth, int kValue>
struct Shared {
  RowValues<Form<kWidth, kValue>::kRows> rows[kStages];
  uint64_t full[kStages], empty[kStages];
};

struct Task {
  int first_key, num_keys, key_tile;
};

template <int kWidth, int kValue>
__device__ __forceinline__ void gather(const SelectedInputs<bf16>& in, const KeyGradients& grad, const ScoreGradients& scores, const Lists& lists,
                                       const Piece& piece, int first_key, Shared<kWidth, kValue>& shared, uint32_t stages) {
  using F = Form<kWidth, kValue>;
  const SelectedSizes& sizes = in.sizes;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp, first = warp * kGroupRows;
  if (warp >= F::kGatherWarps) return;
  const int first_token = piece.out.b * static_cast<int>(sizes.tokens);
  RowWalk walk(sizes, lists, piece.out, piece.first_tile, first + lane % kGroupRows);
  RowWalk::Row ahead[kAhead];  // asked for long before they are needed
#pragma unroll
  for (int i = 0; i < kAhead; ++i) ahead[i] = walk.next();
  Ring<kStages> ring;
  const auto fill = [&](const RowWalk::Row& own) {
    const bool valid = own.entry >= 0;
    const int in_sequence = valid ? lists.view.token(own.entry) : 0, token = first_token + in_sequence, head = own.head;
    RowValues<F::kRows>& values = shared.rows[ring.stage];
    uint64_t* const full = &shared.full[ring.stage];
    const uint32_t q_tile = stages + ring.stage * F::kStageBytes, d_o_tile = q_tile + kWidth / 64 * F::kChunk;
    wait(&shared.empty[ring.stage], ring.parity ^ 1);
#pragma unroll
    for (int i = 0; i < kGroupRows / 4; ++i) {
      const int row = 4 * i + lane / 8, of_token = __shfl_sync(0xffffffffu, token, row), of_head = __shfl_sync(0xffffffffu, head, row);
      const bool there = __shfl_sync(0xffffffffu, own.entry, row) >= 0;
      const bf16* const q = in.q.at(of_token, of_head) + lane % 8 * 8;
      const bf16* const d_o = grad.d_o.at(of_token, of_head) + lane % 8 * 8;
      const uint32_t at = piece_at(first + row, lane % 8);
#pragma unroll
      for (int c = 0; c < kWidth / 64; ++c) copy16_async(q_tile + c * F::kChunk + at, q + c * 64, there);
#pragma unroll
      for (int c = 0; c < kValue / 64; ++c) copy16_async(d_o_tile + c * F::kChunk + at, d_o + c * 64, there);
    }
    if (lane < kGroupRows) {
      const int row = first + lane;
      const std::int64_t from = static_cast<std::int64_t>(token) * sizes.heads + head, limit = sizes.query_start + in_sequence - first_key;
      copy4_async(hopper::shared_address(values.lse + row), grad.lse + from, valid);
      copy4_async(hopper::shared_address(values.delta + row), grad.delta + from, valid);
      values.limit[row] = valid ? static_cast<int>(limit < kKeys ? limit : kKeys) : -1;
      if (lane == 0) {
        values.place[warp] = valid ? token * sizes.chosen + lists.view.place(own.entry) : -1;
        values.part[warp] = (head - scores.first_head) / kGroupRows;
      }
    }
    arrive_after_copies(full);
    __syncwarp();
    if (lane == 0) arrive(full);  // for what was stored, not copied
    ring.advance();
  };
  for (int tile = 0; tile < piece.tiles; tile += kAhead) {
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      if (tile + i >= piece.tiles) break;
      const RowWalk::Row own = ahead[i];
      ahead[i] = walk.next();
      fill(own);
    }
  }
  asm volatile("cp.async.wait_all;" ::: "memory");
}

// scores = keys rows^T over kChunks chunks.
template <int kChunks, int N>
__device__ __forceinline__ void multiply_rows(float (&scores)[N], uint32_t keys, uint32_t rows) {
  constexpr int kChunk = 2 * N * kChunkRowBytes;
#pragma unroll
  for (int step = 0; step < 4 * kChunks; ++step) {
    const uint64_t a = rows_operand(keys + step / 4 * kKeyChunk + step % 4 * 32), b = rows_operand(rows + step / 4 * kChunk + step % 4 * 32);
    if (step == 0) {
      multiply_first(scores, a, b);
    } else {
      multiply(scores, a, b);
    }
  }
}

// sums += weights rows, weights packed.
template <int N, int M>
__device__ __forceinline__ void add_products(float (&sums)[N], const uint32_t (&weights)[M], uint32_t rows) {
  constexpr int kChunk = 4 * M * kChunkRowBytes;
#pragma unroll
  for (int step = 0; step < M / 4; ++step) multiply_registers(sums, weights + 4 * step, columns_operand(rows + step * 16 * kChunkRowBytes, kChunk));
}

__device__ __forceinline__ void meet_multipliers() { asm volatile("bar.sync 1, %0;" ::"n"(2 * kGroupThreads) : "memory"); }

/// This warpgroup's sums to the other one, a float4 a thread and step, and the other one's onto this one's.
template <int N>
__device__ __forceinline__ void leave(float4* at, const float (&sums)[N]) {
#pragma unroll
  for (int i = 0; i < N / 4; ++i) at[i * kGroupThreads] = make_float4(sums[4 * i], sums[4 * i + 1], sums[4 * i + 2], sums[4 * i + 3]);
}
template <int N>
__device__ __forceinline__ void take(float (&sums)[N], const float4* at) {
#pragma unroll
  for (int i = 0; i < N / 4; ++i) {
    const float4 x = at[i * kGroupThreads];
    sums[4 * i] += x.x;
    sums[4 * i + 1] += x.y;
    sums[4 * i + 2] += x.z;
    sums[4 * i + 3] += x.w;
  }
}

/// put(column, a, b) for the pairs of row half `half` of `sums`, times `factor`.
template <int N, class Put>
__device__ __forceinline__ void for_each_pair(const float (&sums)[N], int half, float factor, const Put& put) {
#pragma unroll
  for (int i = 0; i < N / 4; ++i) {
    put(i * 8 + static_cast<int>(threadIdx.x) % 4 * 2, sums[4 * i + 2 * half] * factor, sums[4 * i + 2 * half + 1] * factor);
  }
}

template <int kWidth, int kShared, int kValue>
__device__ __forceinline__ void differentiate(const SelectedSizes& sizes, const KeyGradients& grad, const ScoreGradients& kept, const Work& work,
                                              const Piece& piece, const Task& task, Shared<kWidth, kValue>& shared, unsigned char* memory,
                                              int group) {
  using F = Form<kWidth, kValue>;
  constexpr int kRows = F::kRows;
  const int thread = static_cast<int>(threadIdx.x) % kGroupThreads, lane = thread % kWarp, warp = thread / kWarp;
  const int key = warp * 16 + lane / 4;  // and key + 8
  const float scale = sizes.scale * kLog2E;
  const uint32_t keys = hopper::shared_address(memory), values = keys + kWidth / 64 * kKeyChunk, stages = keys + F::kKeyBytes;
  const bool keeps = kept.data != nullptr && task.key_tile * kKeys + warp * 16 < sizes.select_block;
  float d_k[F::kFirst / 2], d_rest[F::kRest > 0 ? F::kRest / 2 : 1], d_v[kValue / 2], scores[kRows / 2];
  uint32_t p[kRows / 4], ds[kRows / 4];
  clear(d_k);
  clear(d_rest);
  clear(d_v);
  Ring<kStages> ring;
  if (group == 1) ring.advance();
  for (int tile = group; tile < piece.tiles; tile += 2) {
    const RowValues<kRows>& rows = shared.rows[ring.stage];
    const uint32_t q_tile = stages + ring.stage * F::kStageBytes, d_o_tile = q_tile + kWidth / 64 * F::kChunk;
    wait(&shared.full[ring.stage], ring.parity);
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    product_fence();
    multiply_rows<kWidth / 64>(scores, fresh(keys), q_tile);
    product_commit();
    product_wait<0>();
    hold(scores);
    const bool all_seen = rows.limit[0] >= kKeys - 1 && rows.limit[kRows - 1] >= kKeys - 1;  // tokens ascend, padding is last
#pragma unroll
    for (int i = 0; i < kRows / 8; ++i) {
      const int row = i * 8 + lane % 4 * 2;
      const float2 lse = *reinterpret_cast<const float2*>(rows.lse + row);
      const float base[2] = {lse.x * kLog2E, lse.y * kLog2E};
#pragma unroll
      for (int j = 0; j < 4; ++j) scores[4 * i + j] = fast_exp2(fmaf(scores[4 * i + j], scale, -base[j % 2]));
    }
    if (!all_seen) {
#pragma unroll
      for (int i = 0; i < kRows / 8; ++i) {
        const int2 limit = *reinterpret_cast<const int2*>(rows.limit + i * 8 + lane % 4 * 2);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          if (key + j / 2 * 8 > (j % 2 == 0 ? limit.x : limit.y)) scores[4 * i + j] = 0.0f;
        }
      }
    }
    hopper::pack(scores, p);
    hold(p);
    product_fence();
    multiply_rows<kValue / 64>(scores, fresh(values), d_o_tile);
    product_commit();
    add_products(d_v, p, d_o_tile);
    product_commit();
    product_wait<1>();
    hold(scores);
#pragma unroll
    for (int i = 0; i < kRows / 8; ++i) {
      const float2 delta = *reinterpret_cast<const float2*>(rows.delta + i * 8 + lane % 4 * 2);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float2 of = __bfloat1622float2(reinterpret_cast<const __nv_bfloat162&>(p[2 * i + half]));
        scores[4 * i + 2 * half] = of.x * (scores[4 * i + 2 * half] - delta.x);
        scores[4 * i + 2 * half + 1] = of.y * (scores[4 * i + 2 * half + 1] - delta.y);
      }
    }
    hopper::pack(scores, ds);
    hold(ds);
    product_fence();
    add_products(d_k, ds, q_tile);
    if constexpr (F::kRest > 0) add_products(d_rest, ds, q_tile + F::kFirst / 64 * F::kChunk);
    product_commit();
    if (keeps) {
#pragma unroll
      for (int i = 0; i < kRows / kGroupRows; ++i) {
        if (rows.place[i] < 0) continue;
        const uint4 words = make_uint4(transposed(ds[4 * i]), transposed(ds[4 * i + 2]), transposed(ds[4 * i + 1]), transposed(ds[4 * i + 3]));
        __stcs(kept.at(sizes, rows.place[i], rows.part[i], task.key_tile * (kKeys / 16) + warp) + lane, words);
      }
    }
    product_wait<0>();
    hold(d_k);
    if constexpr (F::kRest > 0) hold(d_rest);
    hold(d_v);
    hold(p);
    hold(ds);
    if (lane == 0) arrive(&shared.empty[ring.stage]);
    ring.advance();
    ring.advance();
  }

  // The first warpgroup ends with d_k, the second with d_v.
  auto* const trade = reinterpret_cast<float4*>(memory + F::kKeyBytes) + thread;
  constexpr int kOfValues = kValue / 8 * kGroupThreads, kOfFirst = F::kFirst / 8 * kGroupThreads;
  meet_multipliers();  // the tiles have been read
  if (group == 0) {
    leave(trade, d_v);
  } else {
    leave(trade + kOfValues, d_k);
    if constexpr (F::kRest > 0) leave(trade + kOfValues + kOfFirst, d_rest);
  }
  meet_multipliers();
  if (group == 0) {
    take(d_k, trade + kOfValues);
    if constexpr (F::kRest > 0) take(d_rest, trade + kOfValues + kOfFirst);
  } else {
    take(d_v, trade);
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int at = key + 8 * half;
    if (at >= task.num_keys) continue;
    const std::int64_t row = piece.out.b * sizes.keys + task.first_key + at;
    const int kv = piece.out.kv;
    if (grad.is_partial(piece.pieces)) {
      const std::int64_t slot = (static_cast<std::int64_t>(work.slots[piece.index] + piece.number) * work.key_tiles + task.key_tile) * kKeys + at;
      float* const to = grad.partial + slot * (kWidth + kValue);
      const auto put = [&](int column, float a, float b) { *reinterpret_cast<float2*>(to + column) = make_float2(a, b); };
      if (group == 0) {
        for_each_pair(d_k, half, sizes.scale, put);
        if constexpr (F::kRest > 0) for_each_pair(d_rest, half, sizes.scale, [&](int column, float a, float b) { put(F::kFirst + column, a, b); });
      } else {
        for_each_pair(d_v, half, 1.0f, [&](int column, float a, float b) { put(kWidth + column, a, b); });
      }
    } else if (group == 0) {
      bf16* const to = grad.d_k.at(row, kv);
      float* const to_shared = grad.shared + (row * sizes.key_heads + kv) * kShared;
      for_each_pair(d_k, half, sizes.scale, [&](int column, float a, float b) { put_pair(to + column, a, b, grad.add_to_keys); });
      if constexpr (F::kRest > 0) {
        for_each_pair(d_rest, half, sizes.scale, [&](int column, float a, float b) {
          if constexpr (kShared > 0) {
            *reinterpret_cast<float2*>(to_shared + column) = make_float2(a, b);
          } else {
            put_pair(to + F::kFirst + column, a, b, grad.add_to_keys);
          }
        });
      }
    } else {
      bf16* const to = grad.d_v.at(row, kv);
      for_each_pair(d_v, half, 1.0f, [&](int column, float a, float b) { put_pair(to + column, a, b, grad.add_to_keys); });
    }
  }
}

// grid (pieces, an upper bound, times key tiles).
template <int kWidth, int kShared, int kValue>
__global__ void __launch_bounds__(kThreads, 1)
    key_gradient_kernel(const __grid_constant__ SelectedInputs<bf16> in, const __grid_constant__ KeyGradients grad,
                        const __grid_constant__ ScoreGradients kept, const __grid_constant__ Lists lists, const __grid_constant__ Work work) {
  using F = Form<kWidth, kValue>;
  static_assert(kShared == 0 || kShared == F::kRest);
  extern __shared__ unsigned char dynamic[];
  unsigned char* const memory = dynamic + (1024 - hopper::shared_address(dynamic) % 1024) % 1024;
  auto& shared = *reinterpret_cast<Shared<kWidth, kValue>*>(memory + F::kTileBytes);
  const SelectedSizes& sizes = in.sizes;
  const int piece_index = static_cast<int>(blockIdx.x) / work.key_tiles, key_tile = static_cast<int>(blockIdx.x) % work.key_tiles;
  if (piece_index >= work.starts[work.outputs]) return;
  const Piece piece(sizes, lists, work, piece_index);
  const Output& out = piece.out;
  const int first_key = out.block * sizes.select_block + key_tile * kKeys;
  const int num_keys = min(min(sizes.select_block - key_tile * kKeys, kKeys), static_cast<int>(sizes.keys) - first_key);
  if (num_keys <= 0) return;
  const Task task{first_key, num_keys, key_tile};

  if (threadIdx.x == 0) {
    for (int stage = 0; stage < kStages; ++stage) {
      init_barrier(&shared.full[stage], F::kGatherWarps * (kWarp + 1));
      init_barrier(&shared.empty[stage], kGroupThreads / kWarp);
    }
    publish_barriers();
  }
  const std::int64_t first_row = out.b * sizes.keys + first_key;
  keep_keys<kWidth>(memory, KeySource<kShared>{in.k, in.k_shared, first_row, out.kv, num_keys - 1, sizes.key_width}, num_keys);
  keep_keys<kValue>(memory + kWidth / 64 * kKeyChunk, KeySource<0>{in.v, in.v, first_row, out.kv, num_keys - 1, sizes.value_width}, num_keys);
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  __syncthreads();
  if (threadIdx.x < kGroupThreads) {
    give_registers<kGatherRegisters>();
    gather<kWidth, kValue>(in, grad, kept, lists, piece, first_key, shared, hopper::shared_address(memory) + F::kKeyBytes);
  } else {
    take_registers<kMultiplyRegisters>();
    const int group = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x) / kGroupThreads, 0) - 1;  // the same in all lanes for the compiler too
    differentiate<kWidth, kShared, kValue>(sizes, grad, kept, work, piece, task, shared, memory, group);
  }
}

template <int kWidth, int kShared, int kValue>
void start(Stream& stream, const NsaSelectedBackward& args, const float* delta) {
  using F = Form<kWidth, kValue>;
  const char* const op = args.kName;
  const auto queue = native(stream);
  const SelectedInputs<bf16> in = selected_inputs<bf16>(args);
  const SelectedSizes& sizes = in.sizes;
  const BlockLists index(stream, sizes, in.blocks);
  const HeadSegments segments(sizes);
  Tensor shared_sums = Tensor::empty({args.k.tokens, sizes.key_heads, kShared}, DType::kF32, stream.device());
  constexpr std::size_t kBytes = F::kTileBytes + sizeof(Shared<kWidth, kValue>) + 1024;
  const auto kernel = key_gradient_kernel<kWidth, kShared, kValue>;
  allow_shared_memory(kernel, kBytes, op);

  const ScoreTurns turns = score_turns(shape_of(sizes));
  const bool in_turns = turns.tokens < sizes.tokens;  // of tokens: sums go on in f32
  Tensor carried = Tensor::empty({in_turns ? args.k.tokens : 0, kWidth + kValue}, DType::kF32, stream.device());
  for (int first = 0; first < sizes.key_heads; first += static_cast<int>(turns.key_heads)) {
    const KeyHeads heads{first, static_cast<int>(std::min<std::int64_t>(turns.key_heads, sizes.key_heads - first))};
    std::int64_t token = 0;
    do {
      const std::int64_t tokens = std::min(turns.tokens, sizes.tokens - token);
      const Lists lists{index.view(token, token + tokens), segments, segments.count / sizes.key_heads, F::kRows};
      const KeyPlan plan(stream, sizes, lists, heads, kKeys, kKeyPieces, tokens, in_turns);
      const Work& work = plan.work();
      Tensor partial = Tensor::empty({plan.slots(), work.key_tiles, kKeys, kWidth + kValue}, DType::kF32, stream.device());
      Tensor kept = Tensor::empty({turns.keeps ? score_bytes(shape_of(sizes), tokens) * heads.count : 0}, DType::kU8, stream.device());
      KeyGradients grad{rows_of<bf16>(args.d_o), args.lse.as<float>(), delta,           rows_of<bf16>(args.d_k), rows_of<bf16>(args.d_v),
                        shared_sums.as<float>(), partial.as<float>(),  args.add_to_keys};
      if (in_turns) {
        grad.carried = carried.as<float>();
        grad.is_first_turn = token == 0;
        grad.is_last_turn = token + tokens == sizes.tokens;
      }
      const ScoreGradients scores{turns.keeps ? reinterpret_cast<uint4*>(kept.view().data) : nullptr, first * sizes.heads_per_key(),
                                  heads.count * sizes.heads_per_key() / kGroupRows, token, sizes.batch * tokens};
      kernel<<<plan.blocks(), kThreads, kBytes, queue>>>(in, grad, scores, lists, work);
      check_launch(op);
      if (plan.slots() > 0) {
        const dim3 grid(static_cast<unsigned>(work.outputs * work.key_tiles), kKeys);
        sum_pieces_kernel<kWidth, kShared, kValue, kKeys, kWidth + kValue><<<grid, kWidth + kValue, 0, queue>>>(sizes, grad, work);
        check_launch(op);
      }
      if (turns.keeps) query_sum<kWidth, kShared>(stream, in, scores, rows_of<bf16>(args.d_q));
      token += tokens;
    } while (token < sizes.tokens);
  }
  if (kShared > 0) sum_shared<bf16>(stream, sizes, shared_sums.as<float>(), rows_of<bf16>(args.d_k_shared), args.add_to_keys);
}

}  // namespace

void mma_key_gradient(Stream& stream, const NsaSelectedBackward& args, const float* delta) {
  visit_widths(selected_sizes(args), [&]<int kWidth, int kShared, int kValue>() { start<kWidth, kShared, kValue>(stream, args, delta); });
}

}  // namespace hadal::kernels::cuda
