// d_k and d_v over selected blocks on tensor cores. A block of threads owns 64 keys of one selection block and key head, 16 a warp, with
// their sums in registers; the rows that read the block come by nsa_key_work.cuh into a ring in shared memory.
#include "kernels/cuda/check.h"
#include "kernels/cuda/nsa_key_gradient.cuh"
#include "kernels/cuda/nsa_key_work.cuh"
#include "kernels/cuda/nsa_selected.cuh"

namespace hadal::kernels::cuda {
namespace {

constexpr int kWarps = 4, kThreads = kWarps * kWarp;
constexpr int kKeys = 16 * kWarps;
constexpr int kStages = 3;  // tiles in flight
constexpr std::int64_t kPieces = 2048;
static_assert(kKeys <= kMostKeys);

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
  static constexpr int kSubs = kInRegisters ? 1 : 2;  // parts of a tile that share a reading of the keys
  using Keys = KeyRows<kWidth, kShared, kInRegisters>;
  using Values = KeyRows<kValue, 0, kInRegisters>;
  static constexpr std::size_t kStageBytes = kStages * sizeof(Stage<kWidth, kValue>);
  static constexpr std::size_t kSharedBytes = kStageBytes + Keys::kSharedBytes + Values::kSharedBytes;
  static_assert(sizeof(Stage<kWidth, kValue>) % 128 == 0);
};

// s[sub][n] += keys * rows^T for kSubs 16-row parts of a tile from `first` on; `base` is where its rows begin in shared memory.
template <int kWidth, int kSubs, class Keys>
__device__ void multiply(float (&s)[kSubs][2][4], const Keys& keys, std::uint32_t base, int first, int lane) {
  const int lane_row = lane / 16 * 8 + lane % 8, lane_piece = lane / 8 % 2;
#pragma unroll
  for (int c = 0; c < kWidth / 16; ++c) {
    const uint4 k = keys.at(c);
#pragma unroll
    for (int sub = 0; sub < kSubs; ++sub) {
      const int row = (first + sub) * 16 + lane_row;
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
  const Piece piece(work, piece_index);
  const Output out(sizes, piece.index);
  const int first_key = out.block * sizes.select_block + key_tile * kKeys;
  const int num_keys = min(min(sizes.select_block - key_tile * kKeys, kKeys), static_cast<int>(sizes.keys) - first_key);
  if (num_keys <= 0) return;
  const int tiles = min(lists.tiles(sizes, out) - piece.first_tile, work.piece_tiles);

  const std::int64_t first_row = out.b * sizes.keys + first_key;
  const KeySource<kShared> key_source{in.k, in.k_shared, first_row, out.kv, num_keys - 1, sizes.key_width};
  const KeySource<0> value_source{in.v, in.v, first_row, out.kv, num_keys - 1, sizes.value_width};
  const int low = warp * 16 + quad, high = low + 8;
  const typename Tile::Keys k(key_source, low, high, reinterpret_cast<uint4*>(shared + Tile::kStageBytes), warp, lane);
  const typename Tile::Values v(value_source, low, high, reinterpret_cast<uint4*>(shared + Tile::kStageBytes + Tile::Keys::kSharedBytes), warp, lane);
  float d_k[kWidth / 8][4] = {}, d_v[kValue / 8][4] = {};
  const float scale = sizes.scale * kLog2E;

  Gatherer<kWidth, kValue, kThreads> gatherer(in, grad, lists, out, first_key);
  if (tiles > 0) gatherer.seek(piece.first_tile);
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
#pragma unroll
    for (int first = 0; first < kRows / 16; first += Tile::kSubs) {
      float s[Tile::kSubs][2][4] = {}, dp[Tile::kSubs][2][4] = {};
      multiply<kWidth, Tile::kSubs>(s, k, q_base, first, lane);
      multiply<kValue, Tile::kSubs>(dp, v, d_o_base, first, lane);
#pragma unroll
      for (int sub = 0; sub < Tile::kSubs; ++sub) {
        std::uint32_t p[4], ds[4];
#pragma unroll
        for (int n = 0; n < 2; ++n) {
          const int row = (first + sub) * 16 + n * 8 + pair * 2;
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
        accumulate<kValue>(d_v, p, d_o_base, first + sub, lane);
        accumulate<kWidth>(d_k, ds, q_base, first + sub, lane);
      }
    }
  }
  wait_copies<0>();

#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int key = warp * 16 + quad + 8 * half;
    if (key >= num_keys) continue;
    if (piece.pieces > 1) {
      const std::int64_t row = (static_cast<std::int64_t>(work.slots[piece.index] + piece.number) * work.key_tiles + key_tile) * kKeys + key;
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
#pragma unroll
    for (int n = 0; n < kWidth / 8; ++n) {
      const int channel = n * 8 + pair * 2;
      const float a = d_k[n][2 * half] * sizes.scale, b = d_k[n][2 * half + 1] * sizes.scale;
      if (n * 8 < kWidth - kShared) {
        put_pair(grad.d_k.at(row, out.kv) + channel, a, b, grad.add_to_keys);
      } else {
        *reinterpret_cast<float2*>(grad.shared + (row * sizes.key_heads + out.kv) * kShared + channel - (kWidth - kShared)) = make_float2(a, b);
      }
    }
#pragma unroll
    for (int n = 0; n < kValue / 8; ++n) {
      put_pair(grad.d_v.at(row, out.kv) + n * 8 + pair * 2, d_v[n][2 * half], d_v[n][2 * half + 1], grad.add_to_keys);
    }
  }
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

  const KeyPlan plan(stream, sizes, lists, kKeys, kPieces);
  const Work& work = plan.work();
  Tensor partial = Tensor::empty({plan.slots(), work.key_tiles, kKeys, kWidth + kValue}, DType::kF32, stream.device());
  Tensor shared_sums = Tensor::empty({args.k.tokens, sizes.key_heads, kShared}, DType::kF32, stream.device());
  const KeyGradients grad{rows_of<bf16>(args.d_o), args.lse.as<float>(), delta,           rows_of<bf16>(args.d_k), rows_of<bf16>(args.d_v),
                          shared_sums.as<float>(), partial.as<float>(),  args.add_to_keys};
  constexpr std::size_t kBytes = Layout<kWidth, kShared, kValue>::kSharedBytes;
  const auto kernel = key_gradient_kernel<kWidth, kShared, kValue>;
  allow_shared_memory(kernel, kBytes, op);
  kernel<<<plan.blocks(), kThreads, kBytes, queue>>>(in, grad, lists, work);
  check_launch(op);
  if (plan.slots() > 0) {
    const dim3 grid(static_cast<unsigned>(work.outputs * work.key_tiles), kKeys);
    sum_pieces_kernel<kWidth, kShared, kValue, kKeys, kWidth + kValue><<<grid, kWidth + kValue, 0, queue>>>(sizes, grad, work);
    check_launch(op);
  }
  if (kShared > 0) sum_shared<bf16>(stream, sizes, shared_sums.as<float>(), rows_of<bf16>(args.d_k_shared), args.add_to_keys);
}

}  // namespace

void mma_key_gradient(Stream& stream, const NsaSelectedBackward& args, const float* delta) {
  visit_widths(selected_sizes(args), [&]<int kWidth, int kShared, int kValue>() { start<kWidth, kShared, kValue>(stream, args, delta); });
}

}  // namespace hadal::kernels::cuda
