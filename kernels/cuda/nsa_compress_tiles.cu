// Gated pooling of bf16 rows where a block is two strides of 16 long, in one pass over memory. A chunk is one stride of tokens; block i
// pools chunks i and i + 1. A thread block goes along a sequence with a tile of 64 channels, eight chunks a turn, which the copy engine
// brings into shared memory ahead, in pieces of half a turn. A warp has one chunk of the turn, a lane two channels: it sums the chunk once as a block's first
// half and once as a block's second, and gets the other half of its block from the next warp. In the backward pass each warp then takes
// the same two tokens of every chunk, so that the positions' gradients stay in registers.
//
// With e^(l + p) = e^l e^p an element's exponential serves both of its blocks and those of the positions are taken once: of l relative
// to its chunk's largest, of p relative to all. What is left of a weight is one factor for each half of a block, in which the backward
// pass keeps d_y too. Where such products vanish (logits and positions far apart), the block is pooled again from memory with the largest
// sum taken out, and its weights are found one by one.
#include <algorithm>

#include "kernels/cuda/check.h"
#include "kernels/cuda/column_sums.h"
#include "kernels/cuda/early_launch.cuh"
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
constexpr int kPieceChunks = kWarps / 2, kPieceRows = kPieceChunks * kStride, kChunkBytes = kStride * kChannels * 2;
constexpr int kForwardPieces = 6, kBackwardPieces = 5;  // in shared memory
constexpr int kResident = 2;                            // blocks of a multiprocessor
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
  int per_run;  ///< chunks from where a thread block begins to read a sequence to where the next one does
};

/// 64 channels of a piece's tokens, as the copy engine leaves them: 16-byte pieces of a row swizzled by the row.
struct Tile {
  unsigned char bytes[kPieceRows * kChannels * 2];

  /// Where a lane's channels of a row are; those of a row some chunks on, that many kChunkBytes further.
  __device__ static int place(int row, int lane) { return row * kChannels * 2 + (lane * 4 ^ (row & 7) * 16); }
  __device__ Bf16x2 pair(int place) const { return *reinterpret_cast<const Bf16x2*>(bytes + place); }
};
struct Piece {
  Tile x, logits;
};

/// A chunk as one half of a block, for two channels: base-2 largest logit, sums of e^(l - largest + p - largest p) and of that times x.
struct Half {
  float2 largest, sum, y;
};

/// A block, for one channel. The weight of a token is e^(l - its chunk's largest) e^(p - largest p) times `first` or `second`, by the half
/// that it is in; or, where `exact`, 2^(l + p - first), in base 2.
struct Pooled {
  float y, first, second;
  bool exact;
};

/// What tokens need to know of the blocks of a turn, for a lane's two channels. A block that is not there has factors of zero.
struct Terms {
  float4 factors[kWarps][kLanes];       ///< first, second, times d_y; or, where exact, base-2 log-sum-exp, d_y
  float4 y_and_largest[kWarps][kLanes];  ///< largest logit of the chunk that the block begins with
  uint2 exact[kWarps];                   ///< lanes, for each channel
  float2 last_lse[2][kLanes];            ///< of a turn's last block, for the next turn, if a block of the turn was exact
  uint2 last_exact[2];
};

template <int kPieces>
struct Shared {
  Piece pieces[kPieces];
  float4 weight[kStride][kLanes];  ///< e^(p - largest p) of a token in a block's first half, and in its second
  union {
    float2 largest[kWarps][kLanes];
    Half second[kWarps][kLanes];
  };
  uint64_t full[kPieces];
};
struct BackwardShared {
  Shared<kBackwardPieces> inputs;
  Terms terms;
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

/// Begins to copy piece `number` of a run whose first chunk is `chunk`, where the run has that; zeros for tokens outside the sequence. One
/// thread calls.
template <int kPieces>
__device__ inline void fetch(const Maps& maps, const Place& at, int chunk, int turns, int number, Shared<kPieces>& shared) {
  if (number >= 2 * turns) return;
  Piece& to = shared.pieces[number % kPieces];
  uint64_t* const full = &shared.full[number % kPieces];
  hopper::arrive_expecting(full, sizeof(Piece));
  const auto sequence = static_cast<int>(at.batch);
  const int token = (chunk + number * kPieceChunks) * kStride;
  hopper::copy_chunk(hopper::shared_address(&to.x), maps.x, full, at.first_channel, at.group, token, sequence);
  hopper::copy_chunk(hopper::shared_address(&to.logits), maps.logits, full, at.first_channel, at.group, token, sequence);
}

/// Before the first turn: barriers, the first pieces' copies, e^position. The block calls together.
template <int kPieces>
__device__ inline void begin_run(const Maps& maps, const Inputs& in, const Place& at, int chunk, int turns, Shared<kPieces>& shared) {
  if (threadIdx.x == 0) {
    for (uint64_t& full : shared.full) hopper::init_barrier(&full, 1);
    hopper::publish_barriers();
  }
  await_kernel_before();
  if (threadIdx.x == 0) {
    for (int number = 0; number < kPieces; ++number) fetch(maps, at, chunk, turns, number, shared);
  }
  constexpr int kRows = kStride / kWarps;
  float2 first[kRows]{}, second[kRows]{}, largest{-INFINITY, -INFINITY};  // of the tokens that this warp has of every chunk
  if (at.channel < in.width) {
    const auto position = [&](int j) { return __ldg(reinterpret_cast<const float2*>(in.position + j * in.width + at.channel)); };
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      first[r] = position(at.warp * kRows + r);
      second[r] = position(kStride + at.warp * kRows + r);
      largest = {fmaxf(largest.x, fmaxf(first[r].x, second[r].x)), fmaxf(largest.y, fmaxf(first[r].y, second[r].y))};
    }
  }
  shared.largest[at.warp][at.lane] = largest;
  __syncthreads();
#pragma unroll
  for (int w = 0; w < kWarps; ++w) {
    const float2 other = shared.largest[w][at.lane];
    largest = {fmaxf(largest.x, other.x), fmaxf(largest.y, other.y)};
  }
  const auto weight = [](float p, float top) { return fast_exp2((p - top) * kLog2E); };
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    shared.weight[at.warp * kRows + r][at.lane] = {weight(first[r].x, largest.x), weight(first[r].y, largest.y), weight(second[r].x, largest.x),
                                                   weight(second[r].y, largest.y)};
  }
  __syncthreads();
}

/// The chunk in rows [row, row + kStride) of a piece as a block's first half and as a second one.
__device__ inline void sum_chunk(const Piece& piece, const float4 (*weights)[kLanes], int row, int lane, Half& first, Half& second) {
  Bf16x2 logits[kStride];
  __nv_bfloat162 top;
#pragma unroll
  for (int j = 0; j < kStride; ++j) {
    logits[j] = piece.logits.pair(Tile::place(row + j, lane));
    const auto pair = *reinterpret_cast<const __nv_bfloat162*>(&logits[j]);
    top = j == 0 ? pair : __hmax2(top, pair);
  }
  const float2 largest{__low2float(top) * kLog2E, __high2float(top) * kLog2E};
  first = second = {largest, {}, {}};
#pragma unroll
  for (int j = 0; j < kStride; ++j) {
    const float2 l = floats_of(logits[j]), x = floats_of(piece.x.pair(Tile::place(row + j, lane)));
    const float2 e{fast_exp2(l.x * kLog2E - largest.x), fast_exp2(l.y * kLog2E - largest.y)}, ex{e.x * x.x, e.y * x.y};
    const float4 w = weights[j][lane];
    first.sum = {first.sum.x + e.x * w.x, first.sum.y + e.y * w.y};
    first.y = {first.y.x + ex.x * w.x, first.y.y + ex.y * w.y};
    second.sum = {second.sum.x + e.x * w.z, second.sum.y + e.y * w.w};
    second.y = {second.y.x + ex.x * w.z, second.y.y + ex.y * w.w};
  }
}

/// From memory, relative to the largest logit with its position.
__device__ __noinline__ Pooled pool_exactly(const bf16* x, std::int64_t x_stride, const bf16* logits, std::int64_t logits_stride,
                                            const float* position, int width) {
  float largest = -INFINITY, sum = 0, y = 0;
  for (int j = 0; j < kLength; ++j) largest = fmaxf(largest, to_float(logits[j * logits_stride]) + position[j * width]);
  for (int j = 0; j < kLength; ++j) {
    const float e = fast_exp2((to_float(logits[j * logits_stride]) + position[j * width] - largest) * kLog2E);
    sum += e;
    y += e * to_float(x[j * x_stride]);
  }
  return {y / sum, largest * kLog2E + log2f(sum), 0, true};
}

/// Channel `c` of the lane's two.
__device__ inline Pooled pool(const Inputs& in, const Place& at, int block, int c, float largest1, float largest2, float sum1, float sum2, float y1,
                              float y2) {
  const float largest = fmaxf(largest1, largest2), scale1 = fast_exp2(largest1 - largest), scale2 = fast_exp2(largest2 - largest);
  const float sum = sum1 * scale1 + sum2 * scale2;
  if (sum > kLeastSum) {
    const float inverse = __fdividef(1.0f, sum), first = scale1 * inverse, second = scale2 * inverse;
    return {y1 * first + y2 * second, first, second, false};
  }
  const std::int64_t token = at.batch * in.tokens + block * kStride;
  return pool_exactly(in.x.at(token, at.group) + at.channel + c, in.x.token_stride, in.logits.at(token, at.group) + at.channel + c,
                      in.logits.token_stride, in.position + at.channel + c, in.width);
}

/// The blocks of a turn, one a warp: warp w has the block that begins with its chunk, the last warp that of the turn before.
struct TurnBlock {
  Half first{};  ///< the last warp: of the turn before

  /// What `block` pools to, where that is there, for both channels, and the largest logit of the chunk that it begins with. The block of
  /// threads calls together and meets once, when all have summed their chunks. Before the next call it meets again.
  template <int kPieces, class There>
  __device__ float2 take(const Inputs& in, const Place& at, Shared<kPieces>& shared, const hopper::Ring<kPieces> (&rings)[2], int block,
                         const There& there, Pooled& a, Pooled& b) {
    Half own, second;
    const hopper::Ring<kPieces> ring = at.warp < kPieceChunks ? rings[0] : rings[1];
    hopper::wait(&shared.full[ring.stage], ring.parity);
    sum_chunk(shared.pieces[ring.stage], shared.weight, at.warp % kPieceChunks * kStride, at.lane, own, second);
    shared.second[at.warp][at.lane] = second;
    __syncthreads();
    const bool last = at.warp == kWarps - 1;
    const Half other = shared.second[last ? 0 : at.warp + 1][at.lane];
    const Half begun = last ? first : own;
    first = own;
    a = b = {};
    if (there(block)) {
      a = pool(in, at, block, 0, begun.largest.x, other.largest.x, begun.sum.x, other.sum.x, begun.y.x, other.y.x);
      b = pool(in, at, block, 1, begun.largest.y, other.largest.y, begun.sum.y, other.sum.y, begun.y.y, other.y.y);
    }
    return begun.largest;
  }
};

template <int kPieces>
__device__ inline hopper::Ring<kPieces> next_of(hopper::Ring<kPieces> ring) {
  ring.advance();
  return ring;
}

/// grid (runs, tiles of the width, sequences x groups).
__global__ void __launch_bounds__(kThreads, kResident) forward_kernel(const __grid_constant__ Maps maps, Inputs in, HeadRows<bf16> y) {
  extern __shared__ __align__(1024) unsigned char bytes[];
  auto& shared = *reinterpret_cast<Shared<kForwardPieces>*>(bytes);
  const Place at(in);
  const int begin = static_cast<int>(blockIdx.x) * in.per_run, end = min(begin + in.per_run, in.blocks);
  const int turns = (end - begin + kWarps) / kWarps;  // of chunks begin .. end
  let_next_kernel_come();
  begin_run(maps, in, at, begin, turns, shared);
  TurnBlock own;
  hopper::Ring<kForwardPieces> ring;
  for (int turn = 0; turn < turns; ++turn) {
    const int chunk = begin + turn * kWarps, block = at.warp == kWarps - 1 ? chunk - 1 : chunk + at.warp;
    const auto there = [&](int i) { return i >= begin && i < end && at.channel < in.width; };
    Pooled a, b;
    const hopper::Ring<kForwardPieces> rings[2] = {ring, next_of(ring)};
    own.take(in, at, shared, rings, block, there, a, b);
    ring = next_of(rings[1]);
    if (threadIdx.x == 0) {
      for (int i = 0; i < 2; ++i) fetch(maps, at, begin, turns, 2 * turn + i + kForwardPieces, shared);
    }
    if (there(block)) *reinterpret_cast<Bf16x2*>(y.at(at.batch * in.blocks + block, at.group) + at.channel) = pack(a.y, b.y);
    __syncthreads();  // the other halves have been read
  }
}

struct Gradients {
  HeadRows<const bf16> d_y;
  HeadRows<bf16> d_x, d_logits;
  float* partial;  ///< [sequences x groups x runs, kLength, width]: sums of d_position
};

/// A block as the tokens of one of its chunks see it, for one channel. Their weight times d_y is e^(l - largest) e^(p - largest p) times
/// `factor`; or, where `exact`, 2^(l + p - lse) times it.
struct Seen {
  float factor, factor_y;
  float lse;
  bool exact;
};

/// A token as part of a block's first or second half, for one channel: e^(p - largest p), and p's gradient.
struct Part {
  float weight, d_position;
};

struct TokenGradient {
  float x, logit;
};

/// One channel of a token, of the block that begins with its chunk and of the one before. kExact: blocks may be, with `position` [., width]
/// of the token in the first, its second half `kStride` rows on.
template <bool kExact>
__device__ inline TokenGradient gradient_of(float x, float logit, float largest, const Seen& here, const Seen& before, Part& in_here,
                                            Part& in_before, const float* position, int width) {
  const float e = fast_exp2(logit * kLog2E - largest);
  const auto weight = [&](const Seen& block, const Part& part, int row) {
    if (kExact && block.exact) return fast_exp2(logit * kLog2E + (position[row * width] * kLog2E - block.lse));
    return e * part.weight;
  };
  const float w1 = weight(here, in_here, 0), w2 = weight(before, in_before, kStride);
  const float d_logit1 = w1 * (x * here.factor - here.factor_y), pull = x * before.factor - before.factor_y;
  in_here.d_position += d_logit1;
  in_before.d_position = fmaf(w2, pull, in_before.d_position);
  return {w1 * here.factor + w2 * before.factor, fmaf(w2, pull, d_logit1)};
}

/// Grid as forward's. A block of threads completes the chunks between the first and the last that it reads, and those at the ends of the
/// sequence; a turn's blocks complete those from the last of the turn before on: each thread keeps what it needs of that.
template <bool kAddToX>
__global__ void __launch_bounds__(kThreads, kResident) backward_kernel(const __grid_constant__ Maps maps, Inputs in, Gradients gradients) {
  extern __shared__ __align__(1024) unsigned char bytes[];
  constexpr int kRows = kStride / kWarps;
  auto& [shared, terms] = *reinterpret_cast<BackwardShared*>(bytes);
  const Place at(in);
  const int chunks = (in.tokens + kStride - 1) / kStride;
  const bool is_last = blockIdx.x == gridDim.x - 1;
  const int read = static_cast<int>(blockIdx.x) * in.per_run, begin = blockIdx.x == 0 ? 0 : read + 1;
  const int end = is_last ? chunks : read + in.per_run + 1;
  const int turns = (min(read + in.per_run + 2, chunks) - read + kWarps - 1) / kWarps;
  const bool inside = at.channel < in.width;
  begin_run(maps, in, at, read, turns, shared);

  int place[kRows];           // of this warp's tokens in the first chunk of a piece
  Part parts[2][kRows][2]{};  // of a block's first and second half, this warp's tokens, a lane's channels
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const float4 weight = shared.weight[at.warp * kRows + r][at.lane];
    place[r] = Tile::place(at.warp * kRows + r, at.lane);
    parts[0][r][0].weight = weight.x;
    parts[0][r][1].weight = weight.y;
    parts[1][r][0].weight = weight.z;
    parts[1][r][1].weight = weight.w;
  }
  Bf16x2 x[kRows]{}, logits[kRows]{};  // of the chunk whose turn it is
  Seen before[2]{};                    // the block before, by channel
  // The gradients of this warp's first token of chunk `done`.
  int done = read - 1;
  const std::int64_t first_token = at.batch * in.tokens + static_cast<std::int64_t>(done) * kStride + at.warp * kRows;
  bf16* d_x = gradients.d_x.at(first_token, at.group) + at.channel;
  bf16* d_logits = gradients.d_logits.at(first_token, at.group) + at.channel;
  // kPlain: no block is exact, and all tokens of the chunk are there.
  const auto complete_chunk = [&]<bool kPlain>(const float4& factors, const float4& y_and_largest, uint2 exact) {
    Seen here[2], next[2];
    const auto see = [&](int c, float first, float second, float y, unsigned lanes) {
      if (!kPlain && (lanes >> at.lane & 1) != 0) {
        here[c] = next[c] = {second, second * y, first, true};
      } else {
        here[c] = {first, first * y, 0, false};
        next[c] = {second, second * y, 0, false};
      }
    };
    see(0, factors.x, factors.z, y_and_largest.x, exact.x);
    see(1, factors.y, factors.w, y_and_largest.y, exact.y);
    if (done >= begin && done < end) {
      const int rows = in.tokens - (done * kStride + at.warp * kRows);
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        if (!kPlain && r >= rows) continue;
        auto* const to_x = reinterpret_cast<Bf16x2*>(d_x + r * gradients.d_x.token_stride);
        auto* const to_logits = reinterpret_cast<Bf16x2*>(d_logits + r * gradients.d_logits.token_stride);
        const float2 value = floats_of(x[r]), logit = floats_of(logits[r]);
        const float* const position = in.position + (at.warp * kRows + r) * in.width + at.channel;
        const TokenGradient a =
            gradient_of<!kPlain>(value.x, logit.x, y_and_largest.z, here[0], before[0], parts[0][r][0], parts[1][r][0], position, in.width);
        const TokenGradient b =
            gradient_of<!kPlain>(value.y, logit.y, y_and_largest.w, here[1], before[1], parts[0][r][1], parts[1][r][1], position + 1, in.width);
        if (!inside) continue;
        if constexpr (kAddToX) {
          const float2 old = floats_of(*to_x);
          *to_x = pack(old.x + a.x, old.y + b.x);
        } else {
          *to_x = pack(a.x, b.x);
        }
        *to_logits = pack(a.logit, b.logit);
      }
    }
    before[0] = next[0];
    before[1] = next[1];
    ++done;
    d_x += kStride * gradients.d_x.token_stride;
    d_logits += kStride * gradients.d_logits.token_stride;
  };
  TurnBlock own;
  hopper::Ring<kBackwardPieces> ring;
  bool had_exact = false;  // in the turn before
  for (int turn = 0; turn < turns; ++turn) {
    const int chunk = read + turn * kWarps, block = at.warp == kWarps - 1 ? chunk - 1 : chunk + at.warp;
    const auto there = [&](int i) { return i >= max(begin - 1, 0) && i < min(end, in.blocks) && inside; };
    float2 d_y{};
    if (there(block)) d_y = floats_of(*reinterpret_cast<const Bf16x2*>(gradients.d_y.at(at.batch * in.blocks + block, at.group) + at.channel));
    Pooled a, b;
    const hopper::Ring<kBackwardPieces> rings[2] = {ring, next_of(ring)};
    const float2 largest = own.take(in, at, shared, rings, block, there, a, b);
    ring = next_of(rings[1]);
    if (threadIdx.x == 0 && turn > 0) {  // all are through with the turn before
      for (int i = 0; i < 2; ++i) fetch(maps, at, read, turns, 2 * (turn - 1) + i + kBackwardPieces, shared);
    }
    const int slot = (at.warp + 1) % kWarps;
    terms.factors[slot][at.lane] = {a.exact ? a.first : a.first * d_y.x, b.exact ? b.first : b.first * d_y.y, a.exact ? d_y.x : a.second * d_y.x,
                                    b.exact ? d_y.y : b.second * d_y.y};
    terms.y_and_largest[slot][at.lane] = {a.y, b.y, largest.x, largest.y};
    const uint2 exact{__ballot_sync(0xffffffffu, a.exact), __ballot_sync(0xffffffffu, b.exact)};
    if (at.lane == 0) terms.exact[slot] = exact;
    const bool has_exact = __syncthreads_or(a.exact || b.exact) != 0;
    for (const auto& piece : rings) hopper::wait(&shared.full[piece.stage], piece.parity);  // each thread that reads has seen both arrive
    for (int c = 0; c < 2; ++c) before[c].lse = 0, before[c].exact = false;
    if (had_exact) {
      const uint2 lanes = terms.last_exact[(turn + 1) % 2];
      const float2 lse = terms.last_lse[(turn + 1) % 2][at.lane];
      before[0].lse = lse.x, before[0].exact = (lanes.x >> at.lane & 1) != 0;
      before[1].lse = lse.y, before[1].exact = (lanes.y >> at.lane & 1) != 0;
    }
    const auto complete_turn = [&]<bool kPlain>() {
#pragma unroll(kPlain ? 4 : 1)
      for (int k = 0; k < kWarps; ++k) {
        complete_chunk.template operator()<kPlain>(terms.factors[k][at.lane], terms.y_and_largest[k][at.lane], kPlain ? uint2{} : terms.exact[k]);
        const Piece& piece = shared.pieces[rings[k / kPieceChunks].stage];
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          x[r] = piece.x.pair(place[r] + k % kPieceChunks * kChunkBytes);
          logits[r] = piece.logits.pair(place[r] + k % kPieceChunks * kChunkBytes);
        }
      }
    };
    if (has_exact || had_exact || (chunk + kWarps - 1) * kStride > in.tokens) {
      complete_turn.template operator()<false>();
    } else {
      complete_turn.template operator()<true>();
    }
    had_exact = has_exact;
    if (has_exact && at.warp == 0) {
      terms.last_lse[turn % 2][at.lane] = {before[0].lse, before[1].lse};
      if (at.lane == 0) terms.last_exact[turn % 2] = terms.exact[kWarps - 1];
    }
  }
  let_next_kernel_come();
  if (done < end) {  // the sequence ends with the last turn: no block begins with the last chunk, whose first half the last warp has
    if (at.warp == kWarps - 1) shared.largest[0][at.lane] = own.first.largest;
    __syncthreads();
    const float2 largest = shared.largest[0][at.lane];
    complete_chunk.template operator()<false>({}, {0, 0, largest.x, largest.y}, {});
  }
  if (!inside) return;
  float* const partial = gradients.partial + (static_cast<std::int64_t>(blockIdx.z) * gridDim.x + blockIdx.x) * kLength * in.width;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll
    for (int r = 0; r < kRows; ++r)
      *reinterpret_cast<float2*>(partial + (half * kStride + at.warp * kRows + r) * in.width + at.channel) = {parts[half][r][0].d_position,
                                                                                                           parts[half][r][1].d_position};
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
  return {hopper::heads_map(args.x, args.batch, kPieceRows), hopper::heads_map(args.logits, args.batch, kPieceRows)};
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
  constexpr std::size_t kBytes = sizeof(Shared<kForwardPieces>);
  allow_shared_memory(forward_kernel, kBytes, args.kName);
  launch_early(stream, args.kName, forward_kernel, grid_of(args, cut.runs), kThreads, kBytes, maps_of(args), in, rows_of<bf16>(args.y));
}

void compress_by_tiles(Stream& stream, const NsaCompressBackward& args) {
  Inputs in = inputs_of(args);
  const std::int64_t chunks = (in.tokens + kStride - 1) / kStride;
  // The first and the last chunk of a sequence have no neighbour.
  const auto [each, runs] = pooling_runs(lanes_of(args), args.x.width, chunks - 2, 2);
  in.per_run = static_cast<int>(each);
  const std::int64_t sums = runs * lanes_of(args), size = kLength * args.x.width;
  Tensor partial = Tensor::empty({sums, size}, DType::kF32, stream.device());
  const Gradients gradients{rows_of<bf16>(args.d_y), rows_of<bf16>(args.d_x), rows_of<bf16>(args.d_logits), partial.as<float>()};
  const auto kernel = args.add_to_x ? backward_kernel<true> : backward_kernel<false>;
  allow_shared_memory(kernel, sizeof(BackwardShared), args.kName);
  launch_early(stream, args.kName, kernel, grid_of(args, runs), kThreads, sizeof(BackwardShared), maps_of(args), in, gradients);
  add_column_sums(stream, args.kName, partial.as<float>(), sums, size, args.d_position.as<float>());
}

}  // namespace hadal::kernels::cuda
