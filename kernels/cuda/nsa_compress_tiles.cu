// Gated pooling of bf16 rows where a block is two strides of 16 long, in one pass over memory. A chunk is one stride of tokens; block i
// pools chunks i and i + 1. A thread block goes along a sequence with a tile of 64 channels, eight chunks a turn, which the copy engine
// brings into shared memory turns ahead. A warp has one chunk of the turn, a lane two channels: it sums the chunk once as a block's first
// half and once as a block's second, and gets the other half of its block from the next warp. In the backward pass each warp then takes
// the same two tokens of every chunk, so that the positions' gradients stay in registers.
//
// With e^(l + p) = e^l e^p an element's exponential serves both of its blocks and those of the positions are taken once: of l relative
// to its chunk's largest, of p relative to all. Where such products vanish (logits and positions far apart), the block is pooled again
// from memory with the largest sum taken out.
#include <algorithm>

#include "kernels/cuda/check.h"
#include "kernels/cuda/column_sums.h"
#include "kernels/cuda/heads_map.h"
#include "kernels/cuda/nsa_compress_tiles.h"
#include "kernels/cuda/nsa_mma.cuh"
#include "kernels/cuda/nsa_views.cuh"
#include "kernels/cuda/tile_copy.cuh"

namespace hadal::kernels::cuda {
namespace {

constexpr int kStride = 16, kLength = 2 * kStride;
constexpr int kLanes = kWarp, kChannels = 2 * kLanes;  // pairs of channels, channels of a tile
constexpr int kWarps = 8;                              // of a block; chunks of a turn
constexpr int kThreads = kWarps * kWarp;
constexpr int kTurnRows = kWarps * kStride;
constexpr int kStages = 3, kResident = 2;  // turns in shared memory; blocks of a multiprocessor
constexpr float kLeastSum = 0x1p-40f;      // of a block, above which what vanished does not count

using Bf16x2 = std::uint32_t;

__device__ inline float2 floats_of(Bf16x2 pair) { return {__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u)}; }

struct Maps {
  CUtensorMap x, logits;
};

struct Inputs {
  HeadRows<const bf16> x, logits;
  const float* position;  ///< [kLength, width]
  int tokens, blocks;     ///< of a sequence
  int groups, width;
  int per_run;  ///< what a thread block has of a sequence: blocks forward, chunks backward
};

/// 64 channels of a turn's tokens, as the copy engine leaves them: 16-byte pieces of a row swizzled by the row.
struct Tile {
  unsigned char bytes[kTurnRows * kChannels * 2];

  __device__ Bf16x2 pair(int row, int lane) const {
    return *reinterpret_cast<const Bf16x2*>(bytes + row * kChannels * 2 + (lane * 4 ^ (row % 8) * 16));
  }
};
struct Stage {
  Tile x, logits;
};

/// A chunk as one half of a block, for two channels: base-2 largest logit, sums of e^(l - largest + p - largest p) and of that times x.
struct Half {
  float2 largest, sum, y;
};

struct Pooled {
  float2 lse, y;  ///< base-2 log-sum-exp
};

/// What a token needs to know of a block, for two channels. A block that is not there has weight zero everywhere.
struct BlockTerms {
  float2 lse, y, d_y;
};

struct Shared {
  Stage stages[kStages];
  float2 weight[kLength][kLanes];  ///< e^(p - largest p)
  union {
    Half second[kWarps][kLanes];
    BlockTerms terms[kWarps][kLanes];
  };
  uint64_t full[kStages];
};

/// Where a thread works: a lane's pair of channels of a tile of a group of a sequence.
struct Place {
  int lane, warp, first_channel, channel, group;
  std::int64_t batch;

  __device__ explicit Place(const Inputs& in)
      : lane(static_cast<int>(threadIdx.x) % kWarp),
        warp(static_cast<int>(threadIdx.x) / kWarp),
        first_channel(static_cast<int>(blockIdx.y) * kChannels),
        channel(first_channel + 2 * lane),
        group(static_cast<int>(blockIdx.z) % in.groups),
        batch(blockIdx.z / in.groups) {}
};

/// Begins to copy the chunks from `chunk` on, zeros for tokens outside the sequence. One thread calls.
__device__ inline void fetch(const Maps& maps, const Place& at, int chunk, Stage& to, uint64_t* full) {
  hopper::arrive_expecting(full, sizeof(Stage));
  const auto sequence = static_cast<int>(at.batch);
  hopper::copy_chunk(hopper::shared_address(&to.x), maps.x, full, at.first_channel, at.group, chunk * kStride, sequence);
  hopper::copy_chunk(hopper::shared_address(&to.logits), maps.logits, full, at.first_channel, at.group, chunk * kStride, sequence);
}

/// Before the first turn: barriers, the first stages' copies, e^position. Returns the largest positions, base 2. The block calls together.
__device__ inline float2 begin_run(const Maps& maps, const Inputs& in, const Place& at, int chunk, int turns, Shared& shared) {
  if (threadIdx.x == 0) {
    for (uint64_t& full : shared.full) hopper::init_barrier(&full, 1);
    hopper::publish_barriers();
    for (int s = 0; s < min(turns, kStages); ++s) fetch(maps, at, chunk + s * kWarps, shared.stages[s], &shared.full[s]);
  }
  float2 largest{-INFINITY, -INFINITY};
  if (at.channel < in.width) {
    const auto position = [&](int j) { return __ldg(reinterpret_cast<const float2*>(in.position + j * in.width + at.channel)); };
#pragma unroll 8
    for (int j = 0; j < kLength; ++j) {
      const float2 p = position(j);
      largest = {fmaxf(largest.x, p.x), fmaxf(largest.y, p.y)};
    }
#pragma unroll
    for (int j = at.warp; j < kLength; j += kWarps) {
      const float2 p = position(j);
      shared.weight[j][at.lane] = {fast_exp2((p.x - largest.x) * kLog2E), fast_exp2((p.y - largest.y) * kLog2E)};
    }
  }
  __syncthreads();
  return {largest.x * kLog2E, largest.y * kLog2E};
}

/// The chunk in rows [row, row + kStride) of a stage as a block's first half and as a second one.
__device__ inline void sum_chunk(const Stage& stage, const Shared& shared, int row, int lane, Half& first, Half& second) {
  Bf16x2 logits[kStride];
  __nv_bfloat162 top;
#pragma unroll
  for (int j = 0; j < kStride; ++j) {
    logits[j] = stage.logits.pair(row + j, lane);
    const auto pair = *reinterpret_cast<const __nv_bfloat162*>(&logits[j]);
    top = j == 0 ? pair : __hmax2(top, pair);
  }
  const float2 largest{__low2float(top) * kLog2E, __high2float(top) * kLog2E};
  first = second = {largest, {}, {}};
#pragma unroll
  for (int j = 0; j < kStride; ++j) {
    const float2 l = floats_of(logits[j]), x = floats_of(stage.x.pair(row + j, lane));
    const float2 e{fast_exp2(l.x * kLog2E - largest.x), fast_exp2(l.y * kLog2E - largest.y)}, ex{e.x * x.x, e.y * x.y};
    const float2 w1 = shared.weight[j][lane], w2 = shared.weight[kStride + j][lane];
    first.sum = {first.sum.x + e.x * w1.x, first.sum.y + e.y * w1.y};
    first.y = {first.y.x + ex.x * w1.x, first.y.y + ex.y * w1.y};
    second.sum = {second.sum.x + e.x * w2.x, second.sum.y + e.y * w2.y};
    second.y = {second.y.x + ex.x * w2.x, second.y.y + ex.y * w2.y};
  }
}

/// One channel's log-sum-exp (base 2) and output of a block.
struct Sum {
  float lse, y;
};

/// From memory, relative to the largest logit with its position.
__device__ __noinline__ Sum pool_exactly(const bf16* x, std::int64_t x_stride, const bf16* logits, std::int64_t logits_stride, const float* position,
                                         int width) {
  float largest = -INFINITY, sum = 0, y = 0;
  for (int j = 0; j < kLength; ++j) largest = fmaxf(largest, to_float(logits[j * logits_stride]) + position[j * width]);
  for (int j = 0; j < kLength; ++j) {
    const float e = fast_exp2((to_float(logits[j * logits_stride]) + position[j * width] - largest) * kLog2E);
    sum += e;
    y += e * to_float(x[j * x_stride]);
  }
  return {largest * kLog2E + log2f(sum), y / sum};
}

__device__ inline Pooled pool(const Inputs& in, const Place& at, int block, const Half& first, const Half& second, float2 largest_position) {
  const auto one = [&](int c, float top1, float top2, float sum1, float sum2, float y1, float y2, float position) -> Sum {
    const float top = fmaxf(top1, top2), scale1 = fast_exp2(top1 - top), scale2 = fast_exp2(top2 - top);
    const float sum = sum1 * scale1 + sum2 * scale2;
    if (sum > kLeastSum) return {top + position + log2f(sum), __fdividef(y1 * scale1 + y2 * scale2, sum)};
    const std::int64_t token = at.batch * in.tokens + block * kStride;
    return pool_exactly(in.x.at(token, at.group) + at.channel + c, in.x.token_stride, in.logits.at(token, at.group) + at.channel + c,
                        in.logits.token_stride, in.position + at.channel + c, in.width);
  };
  const Sum a = one(0, first.largest.x, second.largest.x, first.sum.x, second.sum.x, first.y.x, second.y.x, largest_position.x);
  const Sum b = one(1, first.largest.y, second.largest.y, first.sum.y, second.sum.y, first.y.y, second.y.y, largest_position.y);
  return {{a.lse, b.lse}, {a.y, b.y}};
}

/// The blocks of a turn, one a warp: warp w has the block that begins with its chunk, the last warp that of the turn before.
struct TurnBlock {
  Half first{};  ///< the last warp: of the turn before

  /// What `block` pools to, where that is there. The block of threads calls together; all have read the stage then, and may write
  /// shared.terms after their next barrier.
  template <class There>
  __device__ Pooled take(const Inputs& in, const Place& at, const Stage& stage, Shared& shared, int block, float2 largest_position,
                         const There& there) {
    Half own, second;
    sum_chunk(stage, shared, at.warp * kStride, at.lane, own, second);
    shared.second[at.warp][at.lane] = second;
    __syncthreads();
    const bool last = at.warp == kWarps - 1;
    const Half other = shared.second[last ? 0 : at.warp + 1][at.lane];
    const Half begun = last ? first : own;
    first = own;
    return there(block) ? pool(in, at, block, begun, other, largest_position) : Pooled{{INFINITY, INFINITY}, {}};
  }
};

/// grid (runs, tiles of the width, sequences x groups).
__global__ void __launch_bounds__(kThreads, kResident) forward_kernel(const __grid_constant__ Maps maps, Inputs in, HeadRows<bf16> y) {
  extern __shared__ __align__(1024) unsigned char bytes[];
  Shared& shared = *reinterpret_cast<Shared*>(bytes);
  const Place at(in);
  const int begin = static_cast<int>(blockIdx.x) * in.per_run, end = min(begin + in.per_run, in.blocks);
  const int turns = (end - begin + kWarps) / kWarps;  // of chunks begin .. end
  const float2 largest_position = begin_run(maps, in, at, begin, turns, shared);
  TurnBlock own;
  hopper::Ring<kStages> ring;
  for (int turn = 0; turn < turns; ++turn, ring.advance()) {
    const int chunk = begin + turn * kWarps, block = at.warp == kWarps - 1 ? chunk - 1 : chunk + at.warp;
    const auto there = [&](int b) { return b >= begin && b < end && at.channel < in.width; };
    hopper::wait(&shared.full[ring.stage], ring.parity);
    const Pooled pooled = own.take(in, at, shared.stages[ring.stage], shared, block, largest_position, there);
    if (threadIdx.x == 0 && turn + kStages < turns) fetch(maps, at, chunk + kStages * kWarps, shared.stages[ring.stage], &shared.full[ring.stage]);
    if (there(block)) *reinterpret_cast<Bf16x2*>(y.at(at.batch * in.blocks + block, at.group) + at.channel) = pack(pooled.y.x, pooled.y.y);
    __syncthreads();  // the other halves have been read
  }
}

struct Gradients {
  HeadRows<const bf16> d_y;
  HeadRows<bf16> d_x, d_logits;
  float* partial;  ///< [sequences x groups x runs, kLength, width]: sums of d_position
  bool add_to_x;
};

/// w = alpha d_y of one channel, and w (x - y).
struct Share {
  float weighted, d_logit;
};
__device__ inline Share share_of(float logit, float position, float x, float lse, float y, float d_y) {
  const float weighted = fast_exp2(logit * kLog2E + (position - lse)) * d_y;
  return {weighted, weighted * (x - y)};
}

/// Same grid as forward. A turn's blocks complete the chunks from the last of the turn before on: each thread keeps what it needs of that.
__global__ void __launch_bounds__(kThreads, kResident) backward_kernel(const __grid_constant__ Maps maps, Inputs in, Gradients gradients) {
  extern __shared__ __align__(1024) unsigned char bytes[];
  constexpr int kRows = kStride / kWarps;
  Shared& shared = *reinterpret_cast<Shared*>(bytes);
  const Place at(in);
  const int chunks = (in.tokens + kStride - 1) / kStride;
  const int begin = static_cast<int>(blockIdx.x) * in.per_run, end = min(begin + in.per_run, chunks);
  const int turns = (end - begin + 1 + kWarps) / kWarps;  // of chunks begin - 1 .. end
  const bool inside = at.channel < in.width;
  const float2 largest_position = begin_run(maps, in, at, begin - 1, turns, shared);

  float2 position[2][kRows]{}, d_position[2][kRows]{};  // of this warp's tokens as part of a block's first and second half, base 2
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      if (!inside) continue;
      const float2 p = *reinterpret_cast<const float2*>(in.position + (half * kStride + at.warp * kRows + r) * in.width + at.channel);
      position[half][r] = {p.x * kLog2E, p.y * kLog2E};
    }
  }
  const std::int64_t first_token = at.batch * in.tokens + at.warp * kRows;
  Bf16x2 x[kRows]{}, logits[kRows]{};  // of the chunk whose turn it is
  BlockTerms before{};
  TurnBlock own;
  hopper::Ring<kStages> ring;
  for (int turn = 0; turn < turns; ++turn, ring.advance()) {
    const int chunk = begin - 1 + turn * kWarps, block = at.warp == kWarps - 1 ? chunk - 1 : chunk + at.warp;
    const auto there = [&](int b) { return b >= max(begin - 1, 0) && b < min(end, in.blocks) && inside; };
    float2 d_y{};
    if (there(block)) d_y = floats_of(*reinterpret_cast<const Bf16x2*>(gradients.d_y.at(at.batch * in.blocks + block, at.group) + at.channel));
    const Stage& stage = shared.stages[ring.stage];
    hopper::wait(&shared.full[ring.stage], ring.parity);
    const Pooled pooled = own.take(in, at, stage, shared, block, largest_position, there);
    __syncthreads();  // the other halves have been read
    shared.terms[(at.warp + 1) % kWarps][at.lane] = {pooled.lse, pooled.y, d_y};
    __syncthreads();
#pragma unroll 2
    for (int k = 0; k < kWarps; ++k) {
      const int done = chunk - 1 + k;
      const BlockTerms here = shared.terms[k][at.lane];
      if (done >= begin && done < end && inside) {
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          if (done * kStride + at.warp * kRows + r >= in.tokens) continue;
          const std::int64_t token = first_token + done * kStride + r;
          const float2 value = floats_of(x[r]), logit = floats_of(logits[r]);
          auto* const d_x = reinterpret_cast<Bf16x2*>(gradients.d_x.at(token, at.group) + at.channel);
          const float2 old = gradients.add_to_x ? floats_of(*d_x) : float2{};
          const Share x1 = share_of(logit.x, position[0][r].x, value.x, here.lse.x, here.y.x, here.d_y.x);
          const Share y1 = share_of(logit.y, position[0][r].y, value.y, here.lse.y, here.y.y, here.d_y.y);
          const Share x2 = share_of(logit.x, position[1][r].x, value.x, before.lse.x, before.y.x, before.d_y.x);
          const Share y2 = share_of(logit.y, position[1][r].y, value.y, before.lse.y, before.y.y, before.d_y.y);
          *d_x = pack(old.x + (x1.weighted + x2.weighted), old.y + (y1.weighted + y2.weighted));
          *reinterpret_cast<Bf16x2*>(gradients.d_logits.at(token, at.group) + at.channel) = pack(x1.d_logit + x2.d_logit, y1.d_logit + y2.d_logit);
          d_position[0][r] = {d_position[0][r].x + x1.d_logit, d_position[0][r].y + y1.d_logit};
          d_position[1][r] = {d_position[1][r].x + x2.d_logit, d_position[1][r].y + y2.d_logit};
        }
      }
      before = here;
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        x[r] = stage.x.pair(k * kStride + at.warp * kRows + r, at.lane);
        logits[r] = stage.logits.pair(k * kStride + at.warp * kRows + r, at.lane);
      }
    }
    __syncthreads();  // the terms have been read, and the stage
    if (threadIdx.x == 0 && turn + kStages < turns) fetch(maps, at, chunk + kStages * kWarps, shared.stages[ring.stage], &shared.full[ring.stage]);
  }
  if (!inside) return;
  float* const partial = gradients.partial + (static_cast<std::int64_t>(blockIdx.z) * gridDim.x + blockIdx.x) * kLength * in.width;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll
    for (int r = 0; r < kRows; ++r)
      *reinterpret_cast<float2*>(partial + (half * kStride + at.warp * kRows + r) * in.width + at.channel) = d_position[half][r];
  }
}

static_assert(kResident == kPoolingResident && kChannels == kPoolingChannels && kWarps == kPoolingWarps);
constexpr std::int64_t kMostOfGrid = 65535;

template <class Args>
Inputs inputs_of(const Args& args) {
  const std::int64_t tokens = args.x.tokens / args.batch;
  return {rows_of<bf16>(args.x),
          rows_of<bf16>(args.logits),
          args.position.template as<float>(),
          static_cast<int>(tokens),
          static_cast<int>(num_compressed(tokens, kLength, kStride)),
          static_cast<int>(args.x.heads),
          static_cast<int>(args.x.width),
          0};
}

template <class Args>
Maps maps_of(const Args& args) {
  return {hopper::heads_map(args.x, args.batch, kTurnRows), hopper::heads_map(args.logits, args.batch, kTurnRows)};
}

template <class Args>
std::int64_t lanes_of(const Args& args) {
  return args.batch * args.x.heads;
}
template <class Args>
std::int64_t tiles_of(const Args& args) {
  return (args.x.width + kChannels - 1) / kChannels;
}

template <class Args>
dim3 grid_of(const Args& args, std::int64_t runs) {
  return {static_cast<unsigned>(runs), static_cast<unsigned>(tiles_of(args)), static_cast<unsigned>(lanes_of(args))};
}

template <class Args>
bool sizes_fit(const Args& args) {
  const std::int64_t tokens = args.x.tokens / args.batch;
  return args.block_length == kLength && args.block_stride == kStride && tokens >= kLength && tokens < (std::int64_t{1} << 30) &&
         lanes_of(args) <= kMostOfGrid && tiles_of(args) <= kMostOfGrid && reinterpret_cast<std::uintptr_t>(args.position.data) % 8 == 0 &&
         hopper::can_map(args.x) && hopper::can_map(args.logits);
}

}  // namespace

bool fits_tiles(const NsaCompressForward& args) { return sizes_fit(args) && hopper::can_map(args.y); }
bool fits_tiles(const NsaCompressBackward& args) {
  return sizes_fit(args) && hopper::can_map(args.d_y) && hopper::can_map(args.d_x) && hopper::can_map(args.d_logits);
}

void compress_by_tiles(Stream& stream, const NsaCompressForward& args) {
  Inputs in = inputs_of(args);
  const PoolingRuns cut = pooling_runs(lanes_of(args), args.x.width, in.blocks, 1);
  in.per_run = static_cast<int>(cut.per_run);
  allow_shared_memory(forward_kernel, sizeof(Shared), args.kName);
  forward_kernel<<<grid_of(args, cut.runs), kThreads, sizeof(Shared), native(stream)>>>(maps_of(args), in,
                                                                                                                         rows_of<bf16>(args.y));
  check_launch(args.kName);
}

void compress_by_tiles(Stream& stream, const NsaCompressBackward& args) {
  Inputs in = inputs_of(args);
  const std::int64_t chunks = (in.tokens + kStride - 1) / kStride;
  const auto [each, runs] = pooling_runs(lanes_of(args), args.x.width, chunks, 2);
  in.per_run = static_cast<int>(each);
  const std::int64_t sums = runs * lanes_of(args), size = kLength * args.x.width;
  Tensor partial = Tensor::empty({sums, size}, DType::kF32, stream.device());
  const Gradients gradients{rows_of<bf16>(args.d_y), rows_of<bf16>(args.d_x), rows_of<bf16>(args.d_logits), partial.as<float>(), args.add_to_x};
  allow_shared_memory(backward_kernel, sizeof(Shared), args.kName);
  backward_kernel<<<grid_of(args, runs), kThreads, sizeof(Shared), native(stream)>>>(maps_of(args), in, gradients);
  check_launch(args.kName);
  add_column_sums(stream, args.kName, partial.as<float>(), sums, size, args.d_position.as<float>());
}

}  // namespace hadal::kernels::cuda
