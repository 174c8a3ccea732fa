// Gradients of nsa_heads.h where every query head has its own key head, all in one pass over (key block, query). Two warpgroups: the first
// makes scores and d_p of 64 queries, hands p and d_s over through shared memory and writes their share of d_q; the second holds the sums
// d_v += p^T d_o and d_k += d_s^T q of the 64 keys, and gathers the queries three tiles ahead, into the tile it has done with. Lists that
// are cut leave their sums in f32, and a second kernel adds them in order.
#include "kernels/cuda/check.h"
#include "kernels/cuda/nsa_heads.h"
#include "kernels/cuda/nsa_heads_gradient.cuh"
#include "kernels/cuda/nsa_selected.cuh"
#include "kernels/cuda/tile_copy.cuh"

namespace hadal::kernels::cuda {
namespace {

constexpr int kStages = 3, kBuffers = 2;
constexpr int kThreads = 2 * kHeadThreads;

/// Gradients of keys and values.
struct KeySums {
  HeadRows<bf16> d_k, d_v;
  float* shared;   ///< [B*Sk, H, kShared]
  float* partial;  ///< [heads of a turn, slots, key tiles, 64, kWidth + kValue]
  std::int64_t slots;
  bool add;

  /// Two channels of d_k and d_v together, for one key.
  template <int kWidth, int kShared>
  __device__ void put(std::int64_t row, int heads, int head, int channel, float a, float b) const {
    if (kShared > 0 && channel >= kWidth - kShared && channel < kWidth) {
      *reinterpret_cast<float2*>(shared + (row * heads + head) * kShared + channel - (kWidth - kShared)) = make_float2(a, b);
      return;
    }
    bf16* const at = channel < kWidth ? d_k.at(row, head) + channel : d_v.at(row, head) + channel - kWidth;
    auto* const to = reinterpret_cast<__nv_bfloat162*>(at);
    if (add) {
      const float2 old = __bfloat1622float2(*to);
      a += old.x;
      b += old.y;
    }
    *to = __floats2bfloat162_rn(a, b);
  }
  template <int kChannels>
  __device__ float* part(const HeadWork& work, const HeadPartials& turn, int slot, int key) const {
    return partial + ((((work.head - turn.first_head) * slots + slot) * turn.key_tiles + work.key_tile) * kHeadTile + key) * kChannels;
  }
};

struct Barriers {
  uint64_t full[kStages];  ///< the queries are there
  uint64_t made[kBuffers], used[kBuffers];  ///< weights
};

/// Addresses in shared memory. A stage: queries, then d_o; a buffer of weights: p, then d_s, queries in rows.
template <int kWidth, int kValue>
struct Tiles {
  static constexpr int kColumns = (1 + kStages) * (kWidth + kValue) + 2 * kBuffers * kHeadTile;
  std::uint32_t keys, values, stages, weights;

  __device__ explicit Tiles(const void* memory)
      : keys(first_tile(memory)),
        values(keys + tile_bytes(kWidth)),
        stages(values + tile_bytes(kValue)),
        weights(stages + kStages * tile_bytes(kWidth + kValue)) {}
  __device__ std::uint32_t queries(int stage) const { return stages + stage * tile_bytes(kWidth + kValue); }
  __device__ std::uint32_t d_outputs(int stage) const { return queries(stage) + tile_bytes(kWidth); }
  __device__ std::uint32_t probabilities(int buffer) const { return weights + buffer * 2 * kChunkBytes; }
  __device__ std::uint32_t d_scores(int buffer) const { return probabilities(buffer) + kChunkBytes; }
};

/// Packed weights of a warp's 16 rows to a chunk.
__device__ __forceinline__ void store_weights(std::uint32_t chunk, const std::uint32_t (&w)[16]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int row = warp * 16 + lane % 16;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const std::uint32_t at = chunk + row * hopper::kChunkRowBytes + ((2 * i + lane / 16) ^ (row & 7)) * 16;
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(at), "r"(w[4 * i]), "r"(w[4 * i + 1]), "r"(w[4 * i + 2]),
                 "r"(w[4 * i + 3])
                 : "memory");
  }
}

/// The first warpgroup.
template <int kWidth, int kValue>
__device__ __forceinline__ void differentiate_queries(const SelectedSizes& sizes, const HeadPiecesView& pieces, const HeadStatistics& statistics,
                                                      const HeadWork& work, const HeadPartials& to, const Tiles<kWidth, kValue>& at,
                                                      Barriers& barriers) {
  hopper::Ring<kStages> stage;
  hopper::Ring<kBuffers> buffer;
  for (int tile = 0; tile < work.tiles; ++tile) {
    const OwnRows rows(sizes, pieces, work, to, tile);
    const OwnStatistics own(sizes, statistics, work, rows);
    float s[32], d_p[32];
    std::uint32_t p[16], d_s[16];
    hopper::wait(&barriers.full[stage.stage], stage.parity);
    publish_copies();
    multiply_queries<kWidth, kValue>(s, d_p, at.queries(stage.stage), at.d_outputs(stage.stage), at.keys, at.values);
    differentiate(p, d_s, s, d_p, sizes.scale * kLog2E, rows, own);
    hopper::wait(&barriers.used[buffer.stage], buffer.parity ^ 1);
    store_weights(at.probabilities(buffer.stage), p);
    store_weights(at.d_scores(buffer.stage), d_s);
    publish_copies();
    hopper::arrive(&barriers.made[buffer.stage]);
    hopper::hold(d_s);
    store_query_gradient<kWidth>(d_s, at.keys, to, rows, sizes.scale);
    stage.advance();
    buffer.advance();
  }
}

/// d += weights^T tile.
template <int N>
__device__ __forceinline__ void add_queries(float (&d)[N], std::uint32_t weights, std::uint32_t tile) {
#pragma unroll
  for (int step = 0; step < kHeadTile / 16; ++step) {
    hopper::multiply_columns(d, hopper::columns_operand(weights + step * 2048, 0), hopper::columns_operand(tile + step * 2048, kChunkBytes));
  }
}

/// The second warpgroup.
template <int kWidth, int kShared, int kValue>
__device__ __forceinline__ void sum_keys(const SelectedInputs<bf16>& in, const HeadPiecesView& pieces, const HeadRows<const bf16>& d_o,
                                         const HeadWork& work, const HeadPartials& turn, const KeySums& sums, const Tiles<kWidth, kValue>& at,
                                         Barriers& barriers) {
  constexpr int kFirst = kWidth > 128 ? 128 : kWidth, kRest = kWidth - kFirst;  // columns of a product
  QueryGatherer gatherer(in.sizes, pieces, work);
  const auto gather = [&](int to) {
    gatherer.copy<kWidth>(at.queries(to), in.q);
    gatherer.copy<kValue>(at.d_outputs(to), d_o);
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(shared_address(&barriers.full[to])) : "memory");
  };
  for (int tile = 0; tile < min(kStages, work.tiles); ++tile) {
    gatherer.find(tile);
    gather(tile);
  }
  gatherer.find(kStages);
  float d_k[kFirst / 2], d_k_rest[kRest > 0 ? kRest / 2 : 1], d_v[kValue / 2];
  hopper::clear(d_k);
  hopper::clear(d_k_rest);
  hopper::clear(d_v);
  hopper::hold(d_k);
  hopper::hold(d_k_rest);
  hopper::hold(d_v);
  hopper::Ring<kStages> stage;
  hopper::Ring<kBuffers> buffer;
  for (int tile = 0; tile < work.tiles; ++tile) {
    hopper::wait(&barriers.made[buffer.stage], buffer.parity);
    publish_copies();
    const std::uint32_t queries = hopper::fresh(at.queries(stage.stage));
    hopper::product_fence();
    add_queries(d_v, hopper::fresh(at.probabilities(buffer.stage)), hopper::fresh(at.d_outputs(stage.stage)));
    add_queries(d_k, hopper::fresh(at.d_scores(buffer.stage)), queries);
    if constexpr (kRest > 0) add_queries(d_k_rest, hopper::fresh(at.d_scores(buffer.stage)), queries + tile_bytes(kFirst));
    hopper::product_commit();
    hopper::product_wait<0>();
    hopper::hold(d_v);
    hopper::hold(d_k);
    hopper::hold(d_k_rest);
    hopper::arrive(&barriers.used[buffer.stage]);
    if (tile + kStages < work.tiles) {
      asm volatile("bar.sync 1, %0;" ::"n"(kHeadThreads) : "memory");  // all have read the stage
      gather(stage.stage);
      gatherer.find(tile + kStages + 1);
    }
    stage.advance();
    buffer.advance();
  }
  asm volatile("cp.async.wait_all;" ::: "memory");

#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int thread = static_cast<int>(threadIdx.x) % kHeadThreads, key = thread / kWarp * 16 + thread % kWarp / 4 + 8 * half;
    if (key >= work.num_keys) continue;
    const std::int64_t row = work.piece.sequence * in.sizes.keys + work.first_key + key;
    float* const part = sums.part<kWidth + kValue>(work, turn, work.piece.slot, key);
    const auto put = [&](int channel, float a, float b) {
      if (work.piece.parts > 1) {
        *reinterpret_cast<float2*>(part + channel) = make_float2(a, b);
      } else {
        sums.put<kWidth, kShared>(row, in.sizes.heads, work.head, channel, a, b);
      }
    };
    const auto put_all = [&]<int N>(const float (&d)[N], int first, float factor) {
#pragma unroll
      for (int i = 0; i < N / 4; ++i) put(first + i * 8 + thread % 4 * 2, d[4 * i + 2 * half] * factor, d[4 * i + 2 * half + 1] * factor);
    };
    put_all(d_k, 0, in.sizes.scale);
    if constexpr (kRest > 0) put_all(d_k_rest, kFirst, in.sizes.scale);
    put_all(d_v, kWidth, 1.0f);
  }
}

template <int kWidth, int kShared, int kValue>
__global__ void __launch_bounds__(kThreads, 1) gradient_kernel(SelectedInputs<bf16> in, HeadPiecesView pieces, HeadRows<const bf16> d_o,
                                                               HeadStatistics statistics, HeadPartials to, KeySums sums) {
  extern __shared__ unsigned char memory[];
  __shared__ Barriers barriers;
  const HeadWork work(in.sizes, pieces, to);
  if (work.num_keys <= 0) return;
  const Tiles<kWidth, kValue> at(memory);
  if (threadIdx.x == 0) {
    for (uint64_t& barrier : barriers.full) hopper::init_barrier(&barrier, kHeadThreads);
    for (uint64_t& barrier : barriers.made) hopper::init_barrier(&barrier, kHeadThreads);
    for (uint64_t& barrier : barriers.used) hopper::init_barrier(&barrier, kHeadThreads);
    hopper::publish_barriers();
  }
  const bool first = threadIdx.x < kHeadThreads;
  if (first) {
    copy_keys<kWidth>(at.keys, keys_of<kShared>(in, work));
    copy_keys<kValue>(at.values, values_of(in, work));
    commit_copies();
    wait_copies<0>();
    publish_copies();
  }
  __syncthreads();
  if (first) {
    differentiate_queries(in.sizes, pieces, statistics, work, to, at, barriers);
  } else {
    sum_keys<kWidth, kShared, kValue>(in, pieces, d_o, work, to, sums, at, barriers);
  }
}

// The grid of gradient_kernel: adds up the parts of a list that was cut.
template <int kWidth, int kShared, int kValue>
__global__ void __launch_bounds__(kThreads) sum_parts_kernel(SelectedSizes sizes, HeadPiecesView pieces, HeadPartials turn, KeySums sums) {
  constexpr int kPairs = (kWidth + kValue) / 2;
  const HeadWork work(sizes, pieces, turn);
  if (work.num_keys <= 0 || work.piece.parts == 1 || work.piece.number > 0) return;
  for (int i = static_cast<int>(threadIdx.x); i < work.num_keys * kPairs; i += kThreads) {
    const int key = i / kPairs, channel = i % kPairs * 2;
    float2 sum{0, 0};
    for (int part = 0; part < work.piece.parts; ++part) {
      const float2 x = *reinterpret_cast<const float2*>(sums.part<kWidth + kValue>(work, turn, work.piece.slot + part, key) + channel);
      sum.x += x.x;
      sum.y += x.y;
    }
    sums.put<kWidth, kShared>(work.piece.sequence * sizes.keys + work.first_key + key, sizes.heads, work.head, channel, sum.x, sum.y);
  }
}

}  // namespace

template <int kWidth, int kShared, int kValue>
void own_keys_gradient(Stream& stream, const NsaSelectedBackward& args, const float* delta) {
  const SelectedInputs<bf16> in = selected_inputs<bf16>(args);
  const HeadPieces pieces(stream, in.sizes, in.blocks, kOwnKeysPieceTiles);
  const PartialRoom room(stream, in.sizes, kWidth, false);
  Tensor partial = Tensor::empty({room.heads_of_turn(), pieces.most_slots(), key_tiles_of(in.sizes), kHeadTile, kWidth + kValue}, DType::kF32,
                                 stream.device());
  Tensor shared = Tensor::empty({args.k.tokens, in.sizes.heads, kShared}, DType::kF32, stream.device());
  const KeySums sums{rows_of<bf16>(args.d_k), rows_of<bf16>(args.d_v), shared.as<float>(), partial.as<float>(), pieces.most_slots(),
                     args.add_to_keys};
  const HeadStatistics statistics{args.lse.as<float>(), delta};
  const auto kernel = gradient_kernel<kWidth, kShared, kValue>;
  constexpr std::size_t kBytes = memory_of_tiles(Tiles<kWidth, kValue>::kColumns);
  allow_shared_memory(kernel, kBytes, args.kName);
  room.for_each_turn([&](const HeadPartials& turn) {
    const dim3 grid(static_cast<unsigned>(pieces.most()), static_cast<unsigned>(turn.heads), static_cast<unsigned>(turn.key_tiles));
    kernel<<<grid, kThreads, kBytes, native(stream)>>>(in, pieces.view(), rows_of<bf16>(args.d_o), statistics, turn, sums);
    check_launch(args.kName);
    if (pieces.most_slots() > 0) {
      sum_parts_kernel<kWidth, kShared, kValue><<<grid, kThreads, 0, native(stream)>>>(in.sizes, pieces.view(), turn, sums);
      check_launch(args.kName);
    }
    combine_sums(stream, in, turn, kWidth, rows_of<bf16>(args.d_q));
  });
  if (kShared > 0) sum_shared<bf16>(stream, in.sizes, shared.as<float>(), rows_of<bf16>(args.d_k_shared), args.add_to_keys);
}

template void own_keys_gradient<128, 0, 128>(Stream&, const NsaSelectedBackward&, const float*);
template void own_keys_gradient<192, 0, 128>(Stream&, const NsaSelectedBackward&, const float*);
template void own_keys_gradient<192, 64, 128>(Stream&, const NsaSelectedBackward&, const float*);
template void own_keys_gradient<64, 0, 64>(Stream&, const NsaSelectedBackward&, const float*);

}  // namespace hadal::kernels::cuda
