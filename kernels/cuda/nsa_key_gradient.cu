// d_k and d_v over selected blocks on tensor cores. A block of threads owns 64 keys of one selection block and key head, 16 a warp, with
// their sums in registers; the rows (token, head) that read the block come by the lists of nsa_index.cuh, gathered 32 at a time into a
// ring in shared memory. Since every token reads the first block, long lists are cut into pieces, whose sums are added up in their order.
#include "kernels/cuda/check.h"
#include "kernels/cuda/nsa_fragments.cuh"
#include "kernels/cuda/nsa_index.cuh"
#include "kernels/cuda/nsa_key_gradient.cuh"
#include "kernels/cuda/nsa_selected.cuh"

namespace hadal::kernels::cuda {
namespace {

constexpr int kWarps = 4, kThreads = kWarps * kWarp;
constexpr int kKeys = 16 * kWarps;
constexpr int kRows = 32;       // of a tile
constexpr int kStages = 3;      // tiles in flight
constexpr int kPieceTiles = 512;
constexpr int kScanThreads = 1024;

// Outputs (block, sequence, key head), the blocks that most tokens read first. Of output i: pieces starts[i] .. starts[i + 1), and if
// those are several, partial sums slots[i] .. slots[i + 1).
struct Work {
  const std::int32_t* starts;
  const std::int32_t* slots;
  int outputs, key_tiles;
};

struct Output {
  int block, b, kv;

  __device__ Output(const SelectedSizes& sizes, int index)
      : block(index / sizes.key_heads / static_cast<int>(sizes.batch)), b(index / sizes.key_heads % static_cast<int>(sizes.batch)), kv(index % sizes.key_heads) {}
};

struct Lists {
  BlockListsView view;
  HeadSegments segments;
  int segments_of_key;

  __device__ int first_segment(const Output& out) const { return out.kv * segments_of_key; }
  __device__ int group(const SelectedSizes& sizes, int segment) const { return segment * segments.size / sizes.heads_per_group(); }
  __device__ int rows(const SelectedSizes& sizes, const Output& out, int segment) const {
    const int g = group(sizes, segment);
    return (view.end(out.b, g, out.block) - view.begin(out.b, g, out.block)) * segments.size;
  }
  __device__ int tiles(const SelectedSizes& sizes, const Output& out) const {
    int sum = 0;
    for (int i = 0; i < segments_of_key; ++i) sum += (rows(sizes, out, first_segment(out) + i) + kRows - 1) / kRows;
    return sum;
  }
};

// One block of threads: exclusive sums of the pieces and of the partial sums of all outputs.
__global__ void __launch_bounds__(kScanThreads) plan_kernel(SelectedSizes sizes, Lists lists, int outputs, std::int32_t* starts, std::int32_t* slots) {
  __shared__ int2 sums[kScanThreads];
  const int each = (outputs + kScanThreads - 1) / kScanThreads, thread = static_cast<int>(threadIdx.x);
  const int begin = min(thread * each, outputs), end = min(begin + each, outputs);
  const auto pieces_of = [&](int i) { return max(1, (lists.tiles(sizes, Output(sizes, i)) + kPieceTiles - 1) / kPieceTiles); };
  int2 sum{0, 0};
  for (int i = begin; i < end; ++i) {
    const int pieces = pieces_of(i);
    sum.x += pieces;
    sum.y += pieces > 1 ? pieces : 0;
  }
  sums[thread] = sum;
  __syncthreads();
  for (int step = 1; step < kScanThreads; step *= 2) {
    const int2 before = thread >= step ? sums[thread - step] : int2{0, 0};
    __syncthreads();
    sums[thread].x += before.x;
    sums[thread].y += before.y;
    __syncthreads();
  }
  int2 at = thread > 0 ? sums[thread - 1] : int2{0, 0};
  for (int i = begin; i < end; ++i) {
    const int pieces = pieces_of(i);
    starts[i] = at.x;
    slots[i] = at.y;
    at.x += pieces;
    at.y += pieces > 1 ? pieces : 0;
  }
  if (thread == kScanThreads - 1) {
    starts[outputs] = sums[thread].x;
    slots[outputs] = sums[thread].y;
  }
}

struct KeyGradients {
  HeadRows<const bf16> d_o;
  const float* lse;
  const float* delta;
  HeadRows<bf16> d_k, d_v;
  float* shared;   ///< [B*Sk, Hk, kShared]: d_k_shared of each key head
  float* partial;  ///< [slots, key tiles, kKeys, kWidth + kValue]
  bool add_to_keys;
};

template <int kWidth, int kValue>
struct Stage {
  bf16 q[kRows * kWidth], d_o[kRows * kValue];
  float lse[kRows], delta[kRows];
  int limit[kRows];  ///< last key that the row sees, counted in the tile of keys; -1: padding
};

// 16-byte pieces of a row change places from row to row, so that 8 rows meet all banks.
__device__ inline int piece_of(int row, int piece) { return piece ^ (row & 7); }

// 4 threads gather a row.
template <int kWidth, int kValue>
class Gatherer {
 public:
  __device__ Gatherer(const SelectedInputs<bf16>& in, const KeyGradients& grad, const Lists& lists, const Output& out, int first_key)
      : in_(in), grad_(grad), lists_(lists), out_(out), first_key_(first_key) {}

  /// To the given tile of the output's rows.
  __device__ void seek(int tile) {
    segment_ = lists_.first_segment(out_);
    enter();
    while (tile > 0 && tile >= tiles_) {
      tile -= tiles_;
      ++segment_;
      enter();
    }
    tile_ = tile;
    settle();
    fetch();
  }
  /// Starts the copies of the tile and moves on; the stage's other values are written at once.
  __device__ void load(Stage<kWidth, kValue>& stage) {
    const int row = static_cast<int>(threadIdx.x) / 4, part = static_cast<int>(threadIdx.x) % 4;
    const bool valid = token_ >= 0;
    const std::int64_t token = static_cast<std::int64_t>(out_.b) * in_.sizes.tokens + (valid ? token_ : 0);
    const bf16* const q = in_.q.at(token, head_);
    const bf16* const d_o = grad_.d_o.at(token, head_);
#pragma unroll
    for (int piece = part; piece < kWidth / 8; piece += 4) {
      copy16_async(shared_address(stage.q + row * kWidth + piece_of(row, piece) * 8), q + piece * 8, valid);
    }
#pragma unroll
    for (int piece = part; piece < kValue / 8; piece += 4) {
      copy16_async(shared_address(stage.d_o + row * kValue + piece_of(row, piece) * 8), d_o + piece * 8, valid);
    }
    if (part == 0) {
      const std::int64_t at = token * in_.sizes.heads + head_;
      stage.lse[row] = valid ? grad_.lse[at] * kLog2E : 0.0f;
      stage.delta[row] = valid ? grad_.delta[at] : 0.0f;
      const std::int64_t limit = in_.sizes.query_start + token_ - first_key_;
      stage.limit[row] = valid ? static_cast<int>(limit < kKeys ? limit : kKeys) : -1;
    }
    ++tile_;
    settle();
    fetch();
  }

 private:
  __device__ void enter() {
    rows_ = lists_.rows(in_.sizes, out_, segment_);
    tiles_ = (rows_ + kRows - 1) / kRows;
    begin_ = lists_.view.begin(out_.b, lists_.group(in_.sizes, segment_), out_.block);
  }
  __device__ void settle() {
    while (tile_ >= tiles_ && segment_ + 1 < lists_.first_segment(out_) + lists_.segments_of_key) {
      ++segment_;
      enter();
      tile_ = 0;
    }
  }
  // The row of the next tile, a tile before it is needed.
  __device__ void fetch() {
    const int row = tile_ * kRows + static_cast<int>(threadIdx.x) / 4;
    const bool valid = row < rows_;
    token_ = valid ? lists_.view.entries[begin_ + row / lists_.segments.size] : -1;
    head_ = segment_ * lists_.segments.size + (valid ? row % lists_.segments.size : 0);
  }

  const SelectedInputs<bf16>& in_;
  const KeyGradients& grad_;
  const Lists& lists_;
  const Output out_;
  int first_key_, segment_ = 0, rows_ = 0, tiles_ = 0, begin_ = 0, tile_ = 0, token_ = -1, head_ = 0;
};

// Rows quad and quad + 8 of a warp's 16 keys as A, depths in their own order: in registers, or where the sums leave no room in shared
// memory, a lane's four words together.
template <int kWidth, int kShared, bool kInRegisters>
class KeyRows {
 public:
  static constexpr std::size_t kSharedBytes = kInRegisters ? 0 : static_cast<std::size_t>(kKeys) * kWidth * sizeof(bf16);

  __device__ KeyRows(const KeySource<kShared>& from, int low, int high, uint4* shared, int warp, int lane)
      : shared_(shared + warp * (kWidth / 16) * kWarp + lane) {
#pragma unroll
    for (int c = 0; c < kWidth / 16; ++c) {
      const auto word = [&](int key, int channel) { return __ldg(reinterpret_cast<const unsigned*>(from.at(key, c * 16 + channel + lane % 4 * 2))); };
      const uint4 words = make_uint4(word(low, 0), word(high, 0), word(low, 8), word(high, 8));
      if constexpr (kInRegisters) {
        words_[c] = words;
      } else {
        shared_[c * kWarp] = words;  // each lane reads what it wrote
      }
    }
  }
  __device__ uint4 at(int c) const {
    if constexpr (kInRegisters) return words_[c];
    return shared_[c * kWarp];
  }

 private:
  uint4 words_[kInRegisters ? kWidth / 16 : 1];
  uint4* shared_;
};

template <int kWidth, int kShared, int kValue>
struct Layout {
  static constexpr bool kInRegisters = kWidth + kValue <= 256;
  using Keys = KeyRows<kWidth, kShared, kInRegisters>;
  using Values = KeyRows<kValue, 0, kInRegisters>;
  static constexpr std::size_t kStageBytes = kStages * sizeof(Stage<kWidth, kValue>);
  static constexpr std::size_t kSharedBytes = kStageBytes + Keys::kSharedBytes + Values::kSharedBytes;
  static_assert(sizeof(Stage<kWidth, kValue>) % 128 == 0);
};

// s[sub][n] += keys * rows^T for the two 16-row parts of a tile; `base` is where its rows begin in shared memory.
template <int kWidth, class Keys>
__device__ void multiply(float (&s)[2][2][4], const Keys& keys, std::uint32_t base, int lane) {
  const int lane_row = lane / 16 * 8 + lane % 8, lane_piece = lane / 8 % 2;
#pragma unroll
  for (int c = 0; c < kWidth / 16; ++c) {
    const uint4 k = keys.at(c);
#pragma unroll
    for (int sub = 0; sub < 2; ++sub) {
      const int row = sub * 16 + lane_row;
      std::uint32_t b[4];
      ldmatrix4(b, base + static_cast<std::uint32_t>((row * kWidth + piece_of(row, c * 2 + lane_piece) * 8) * sizeof(bf16)));
      mma(s[sub][0], k.x, k.y, k.z, k.w, b[0], b[1]);
      mma(s[sub][1], k.x, k.y, k.z, k.w, b[2], b[3]);
    }
  }
}

// sum += a * rows of part `sub`, a [16 keys, 16 rows].
template <int kWidth>
__device__ void accumulate(float (&sum)[kWidth / 8][4], const std::uint32_t (&a)[4], std::uint32_t base, int sub, int lane) {
  const int row = sub * 16 + lane / 8 % 2 * 8 + lane % 8, lane_piece = lane / 16;
#pragma unroll
  for (int c = 0; c < kWidth / 16; ++c) {
    std::uint32_t b[4];
    ldmatrix4_transposed(b, base + static_cast<std::uint32_t>((row * kWidth + piece_of(row, c * 2 + lane_piece) * 8) * sizeof(bf16)));
    mma(sum[2 * c], a[0], a[1], a[2], a[3], b[0], b[1]);
    mma(sum[2 * c + 1], a[0], a[1], a[2], a[3], b[2], b[3]);
  }
}

// grid (pieces, an upper bound, times key tiles).
template <int kWidth, int kShared, int kValue>
__global__ void __launch_bounds__(kThreads, 2) key_gradient_kernel(SelectedInputs<bf16> in, KeyGradients grad, Lists lists, Work work) {
  using Tile = Layout<kWidth, kShared, kValue>;
  extern __shared__ __align__(128) unsigned char shared[];
  auto* const stages = reinterpret_cast<Stage<kWidth, kValue>*>(shared);
  const SelectedSizes& sizes = in.sizes;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp, quad = lane / 4, pair = lane % 4;
  const int piece_index = static_cast<int>(blockIdx.x) / work.key_tiles, key_tile = static_cast<int>(blockIdx.x) % work.key_tiles;
  if (piece_index >= work.starts[work.outputs]) return;
  int index = 0;  // the last output that starts at or before the piece
  for (int size = work.outputs; size > 1;) {
    const int half = size / 2;
    if (work.starts[index + half] <= piece_index) {
      index += half;
      size -= half;
    } else {
      size = half;
    }
  }
  const Output out(sizes, index);
  const int piece = piece_index - work.starts[index], pieces = work.starts[index + 1] - work.starts[index];
  const int first_key = out.block * sizes.select_block + key_tile * kKeys;
  const int num_keys = min(min(sizes.select_block - key_tile * kKeys, kKeys), static_cast<int>(sizes.keys) - first_key);
  if (num_keys <= 0) return;
  const int tiles = min(lists.tiles(sizes, out) - piece * kPieceTiles, kPieceTiles);

  const std::int64_t first_row = out.b * sizes.keys + first_key;
  const KeySource<kShared> key_source{in.k, in.k_shared, first_row, out.kv, num_keys - 1, sizes.key_width};
  const KeySource<0> value_source{in.v, in.v, first_row, out.kv, num_keys - 1, sizes.value_width};
  const int low = warp * 16 + quad, high = low + 8;
  const typename Tile::Keys k(key_source, low, high, reinterpret_cast<uint4*>(shared + Tile::kStageBytes), warp, lane);
  const typename Tile::Values v(value_source, low, high, reinterpret_cast<uint4*>(shared + Tile::kStageBytes + Tile::Keys::kSharedBytes), warp, lane);
  float d_k[kWidth / 8][4] = {}, d_v[kValue / 8][4] = {};
  const float scale = sizes.scale * kLog2E;

  Gatherer<kWidth, kValue> gatherer(in, grad, lists, out, first_key);
  if (tiles > 0) gatherer.seek(piece * kPieceTiles);
  for (int i = 0; i < kStages - 1; ++i) {
    if (i < tiles) gatherer.load(stages[i]);
    commit_copies();
  }
  for (int tile = 0; tile < tiles; ++tile) {
    wait_copies<kStages - 2>();
    __syncthreads();  // the tile is there for all, and the stage before it has been read
    if (tile + kStages - 1 < tiles) gatherer.load(stages[(tile + kStages - 1) % kStages]);
    commit_copies();
    const Stage<kWidth, kValue>& stage = stages[tile % kStages];
    const std::uint32_t q_base = shared_address(stage.q), d_o_base = shared_address(stage.d_o);
    float s[2][2][4] = {}, dp[2][2][4] = {};
    multiply<kWidth>(s, k, q_base, lane);
    multiply<kValue>(dp, v, d_o_base, lane);
#pragma unroll
    for (int sub = 0; sub < 2; ++sub) {
      std::uint32_t p[4], ds[4];
#pragma unroll
      for (int n = 0; n < 2; ++n) {
        const int row = sub * 16 + n * 8 + pair * 2;
        const float2 lse = *reinterpret_cast<const float2*>(stage.lse + row), delta = *reinterpret_cast<const float2*>(stage.delta + row);
        const int2 limit = *reinterpret_cast<const int2*>(stage.limit + row);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int key = warp * 16 + quad + 8 * half;
          const float p0 = key <= limit.x ? fast_exp2(fmaf(s[sub][n][2 * half], scale, -lse.x)) : 0.0f;
          const float p1 = key <= limit.y ? fast_exp2(fmaf(s[sub][n][2 * half + 1], scale, -lse.y)) : 0.0f;
          p[n * 2 + half] = pack(p0, p1);
          ds[n * 2 + half] = pack(p0 * (dp[sub][n][2 * half] - delta.x), p1 * (dp[sub][n][2 * half + 1] - delta.y));
        }
      }
      accumulate<kValue>(d_v, p, d_o_base, sub, lane);
      accumulate<kWidth>(d_k, ds, q_base, sub, lane);
    }
  }
  wait_copies<0>();

#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int key = warp * 16 + quad + 8 * half;
    if (key >= num_keys) continue;
    if (pieces > 1) {
      const std::int64_t row = (static_cast<std::int64_t>(work.slots[index] + piece) * work.key_tiles + key_tile) * kKeys + key;
      float* const to = grad.partial + row * (kWidth + kValue) + pair * 2;
#pragma unroll
      for (int n = 0; n < kWidth / 8; ++n) {
        *reinterpret_cast<float2*>(to + n * 8) = make_float2(d_k[n][2 * half] * sizes.scale, d_k[n][2 * half + 1] * sizes.scale);
      }
#pragma unroll
      for (int n = 0; n < kValue / 8; ++n) *reinterpret_cast<float2*>(to + kWidth + n * 8) = make_float2(d_v[n][2 * half], d_v[n][2 * half + 1]);
      continue;
    }
    const std::int64_t row = first_row + key;
    const auto put = [&](bf16* at, float a, float b) {
      auto* const to = reinterpret_cast<__nv_bfloat162*>(at);
      if (grad.add_to_keys) {
        const float2 old = __bfloat1622float2(*to);
        a += old.x;
        b += old.y;
      }
      *to = __floats2bfloat162_rn(a, b);
    };
#pragma unroll
    for (int n = 0; n < kWidth / 8; ++n) {
      const int channel = n * 8 + pair * 2;
      const float a = d_k[n][2 * half] * sizes.scale, b = d_k[n][2 * half + 1] * sizes.scale;
      if (n * 8 < kWidth - kShared) {
        put(grad.d_k.at(row, out.kv) + channel, a, b);
      } else {
        *reinterpret_cast<float2*>(grad.shared + (row * sizes.key_heads + out.kv) * kShared + channel - (kWidth - kShared)) = make_float2(a, b);
      }
    }
#pragma unroll
    for (int n = 0; n < kValue / 8; ++n) put(grad.d_v.at(row, out.kv) + n * 8 + pair * 2, d_v[n][2 * half], d_v[n][2 * half + 1]);
  }
}

// grid (outputs * key tiles, kKeys): adds up the pieces of an output that has several; a thread a channel of d_k or d_v.
template <int kWidth, int kShared, int kValue>
__global__ void __launch_bounds__(kWidth + kValue) sum_pieces_kernel(SelectedSizes sizes, KeyGradients grad, Work work) {
  const int index = static_cast<int>(blockIdx.x) / work.key_tiles, key_tile = static_cast<int>(blockIdx.x) % work.key_tiles;
  const int begin = work.slots[index], end = work.slots[index + 1], key = static_cast<int>(blockIdx.y), channel = static_cast<int>(threadIdx.x);
  const Output out(sizes, index);
  const int in_block = key_tile * kKeys + key, position = out.block * sizes.select_block + in_block;
  if (begin == end || in_block >= sizes.select_block || position >= sizes.keys) return;
  float sum = 0;
  for (int slot = begin; slot < end; ++slot) {
    sum += grad.partial[((static_cast<std::int64_t>(slot) * work.key_tiles + key_tile) * kKeys + key) * (kWidth + kValue) + channel];
  }
  const std::int64_t row = out.b * sizes.keys + position;
  if (channel >= kWidth - kShared && channel < kWidth) {
    grad.shared[(row * sizes.key_heads + out.kv) * kShared + channel - (kWidth - kShared)] = sum;
    return;
  }
  bf16* const to = channel < kWidth ? grad.d_k.at(row, out.kv) + channel : grad.d_v.at(row, out.kv) + channel - kWidth;
  *to = __float2bfloat16_rn(grad.add_to_keys ? sum + to_float(*to) : sum);
}

template <int kWidth, int kShared, int kValue>
void start(Stream& stream, const NsaSelectedBackward& args, const float* delta) {
  const char* const op = args.kName;
  const auto queue = native(stream);
  const SelectedInputs<bf16> in = selected_inputs<bf16>(args);
  const SelectedSizes& sizes = in.sizes;
  const BlockLists index(stream, sizes, in.blocks);
  const HeadSegments segments(sizes);
  const Lists lists{index.view(), segments, segments.count / sizes.key_heads};

  const std::int64_t outputs = sizes.batch * sizes.num_blocks * sizes.key_heads, key_tiles = (sizes.select_block + kKeys - 1) / kKeys;
  const std::int64_t tiles = args.q.tokens * sizes.heads * sizes.chosen / kRows + outputs * lists.segments_of_key;
  const std::int64_t pieces = tiles / kPieceTiles + outputs, slots = 2 * (tiles / kPieceTiles);
  HADAL_CHECK(pieces * key_tiles < INT32_MAX, "{}: {} pieces of work", op, pieces * key_tiles);
  Tensor plan = Tensor::empty({2, outputs + 1}, DType::kI32, stream.device());
  Tensor partial = Tensor::empty({slots, key_tiles, kKeys, kWidth + kValue}, DType::kF32, stream.device());
  Tensor shared_sums = Tensor::empty({args.k.tokens, sizes.key_heads, kShared}, DType::kF32, stream.device());
  auto* const starts = plan.as<std::int32_t>();
  plan_kernel<<<1, kScanThreads, 0, queue>>>(sizes, lists, static_cast<int>(outputs), starts, starts + outputs + 1);
  check_launch(op);

  const Work work{starts, starts + outputs + 1, static_cast<int>(outputs), static_cast<int>(key_tiles)};
  const KeyGradients grad{rows_of<bf16>(args.d_o), args.lse.as<float>(), delta, rows_of<bf16>(args.d_k), rows_of<bf16>(args.d_v), shared_sums.as<float>(), partial.as<float>(), args.add_to_keys};
  constexpr std::size_t kBytes = Layout<kWidth, kShared, kValue>::kSharedBytes;
  const auto kernel = key_gradient_kernel<kWidth, kShared, kValue>;
  allow_shared_memory(kernel, kBytes, op);
  kernel<<<static_cast<unsigned>(pieces * key_tiles), kThreads, kBytes, queue>>>(in, grad, lists, work);
  check_launch(op);
  if (slots > 0) {
    const dim3 grid(static_cast<unsigned>(outputs * key_tiles), kKeys);
    sum_pieces_kernel<kWidth, kShared, kValue><<<grid, kWidth + kValue, 0, queue>>>(sizes, grad, work);
    check_launch(op);
  }
  if (kShared > 0) sum_shared<bf16>(stream, sizes, shared_sums.as<float>(), rows_of<bf16>(args.d_k_shared), args.add_to_keys);
}

}  // namespace

void mma_key_gradient(Stream& stream, const NsaSelectedBackward& args, const float* delta) {
  visit_widths(selected_sizes(args), [&]<int kWidth, int kShared, int kValue>() { start<kWidth, kShared, kValue>(stream, args, delta); });
}

}  // namespace hadal::kernels::cuda
