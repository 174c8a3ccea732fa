// Gradients of latent entries (MLA absorbed) over selected blocks on tensor cores. A block of 8 warps owns 32 entries, whose sums, 32 x (576
// + 512), lie in registers: first each warp makes one 16 x 8 part of the probabilities and of their gradients, which go through shared
// memory; then each adds up its own 72 + 64 channels. Rows come by nsa_latent_rows.cuh.
#include "kernels/cuda/check.h"
#include "kernels/cuda/nsa_key_work.cuh"
#include "kernels/cuda/nsa_latent.cuh"
#include "kernels/cuda/nsa_latent_rows.cuh"
#include "kernels/cuda/nsa_selected.cuh"

namespace hadal::kernels::cuda {
namespace {

constexpr int kWarps = 8, kThreads = kWarps * kWarp;
constexpr int kKeys = static_cast<int>(kLatentTileKeys), kKeyParts16 = kKeys / 16;
constexpr int kStages = 2;
constexpr int kKeyTiles = kLatentWidth / 8 / kWarps, kValueTiles = kLatent / 8 / kWarps;  // of 8 channels, of a warp
static_assert(kKeyParts16 * (kRows / 8) == kWarps && kKeys <= kMostKeys);

// A of 32 keys: step c, part m is at[(c * 2 + m) * 32 + lane].
template <int kWidth>
struct KeyWords {
  uint4 at[kWidth / 16 * kKeyParts16 * kWarp];
};

struct Shared {
  Stage<kLatentWidth, kLatent> stages[kStages];
  KeyWords<kLatentWidth> k;
  KeyWords<kLatent> v;
  // A of 32 keys over 32 rows: [steps of 16 rows][parts of 16 keys][lanes]
  uint4 p[2][kKeyParts16][kWarp], ds[2][kKeyParts16][kWarp];
};

template <int kWidth, int kShared>
__device__ void keep_keys(KeyWords<kWidth>& to, const KeySource<kShared>& from) {
  for (int i = static_cast<int>(threadIdx.x); i < kWidth / 16 * kKeyParts16 * kWarp; i += kThreads) {
    const int lane = i % kWarp, low = i / kWarp % kKeyParts16 * 16 + lane / 4, channel = i / kWarp / kKeyParts16 * 16 + lane % 4 * 2;
    const auto word = [&](int key, int at) { return __ldg(reinterpret_cast<const unsigned*>(from.at(key, at))); };
    to.at[i] = make_uint4(word(low, channel), word(low + 8, channel), word(low, channel + 8), word(low + 8, channel + 8));
  }
}

// Part [16 keys of part m, 8 rows from `first`] of keys * rows^T.
template <int kWidth>
__device__ void multiply(float (&sum)[4], const KeyWords<kWidth>& keys, int m, const bf16* rows, int first, int lane) {
  float odd[4] = {};  // two chains of products
  const int row = first + lane % 8;
  const std::uint32_t base = shared_address(rows + row * kWidth);
#pragma unroll 4
  for (int c = 0; c < kWidth / 32; ++c) {
    std::uint32_t b[4];
    ldmatrix4(b, base + static_cast<std::uint32_t>(piece_of(row, c * 4 + lane / 8) * 16));
    const uint4 a0 = keys.at[(2 * c * kKeyParts16 + m) * kWarp + lane], a1 = keys.at[((2 * c + 1) * kKeyParts16 + m) * kWarp + lane];
    mma(sum, a0.x, a0.y, a0.z, a0.w, b[0], b[1]);
    mma(odd, a1.x, a1.y, a1.z, a1.w, b[2], b[3]);
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) sum[i] += odd[i];
}

// sum[m] of kTiles tiles of 8 channels from `first` on += a * rows.
template <int kWidth, int kTiles>
__device__ void accumulate(float (&sum)[kKeyParts16][kTiles][4], const uint4 (&a)[2][kKeyParts16][kWarp], const bf16* rows, int first, int lane) {
  uint4 own[2][kKeyParts16];
#pragma unroll
  for (int step = 0; step < 2; ++step) {
#pragma unroll
    for (int m = 0; m < kKeyParts16; ++m) own[step][m] = a[step][m][lane];
  }
  const std::uint32_t base = shared_address(rows + lane * kWidth);  // a lane a row: 4 matrices of 8
#pragma unroll
  for (int n = 0; n < kTiles; ++n) {
    std::uint32_t b[4];
    ldmatrix4_transposed(b, base + static_cast<std::uint32_t>(piece_of(lane, first + n) * 16));
#pragma unroll
    for (int m = 0; m < kKeyParts16; ++m) {
      mma(sum[m][n], own[0][m].x, own[0][m].y, own[0][m].z, own[0][m].w, b[0], b[1]);
      mma(sum[m][n], own[1][m].x, own[1][m].y, own[1][m].z, own[1][m].w, b[2], b[3]);
    }
  }
}

// grid (pieces, an upper bound, times key tiles).
__global__ void __launch_bounds__(kThreads, 1) key_gradient_kernel(SelectedInputs<bf16> in, KeyGradients grad, Lists lists, Work work) {
  extern __shared__ __align__(128) unsigned char memory[];
  auto& shared = *reinterpret_cast<Shared*>(memory);
  const SelectedSizes& sizes = in.sizes;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp, quad = lane / 4, pair = lane % 4;
  const int piece_index = static_cast<int>(blockIdx.x) / work.key_tiles, key_tile = static_cast<int>(blockIdx.x) % work.key_tiles;
  if (piece_index >= work.starts[work.outputs]) return;
  const Piece piece(sizes, lists, work, piece_index);
  const Output& out = piece.out;
  const int first_key = out.block * sizes.select_block + key_tile * kKeys;
  const int num_keys = min(min(sizes.select_block - key_tile * kKeys, kKeys), static_cast<int>(sizes.keys) - first_key);
  if (num_keys <= 0) return;
  const int tiles = piece.tiles;
  const std::int64_t first_row = out.b * sizes.keys + first_key;
  keep_keys(shared.k, KeySource<kRotated>{in.k, in.k_shared, first_row, 0, num_keys - 1, kLatent});
  keep_keys(shared.v, KeySource<0>{in.v, in.v, first_row, 0, num_keys - 1, kLatent});

  float d_k[kKeyParts16][kKeyTiles][4] = {}, d_v[kKeyParts16][kValueTiles][4] = {};
  const float scale = sizes.scale * kLog2E;
  const int m = warp / (kRows / 8), n = warp % (kRows / 8);  // the part of the probabilities that this warp makes
  Gatherer<kLatentWidth, kLatent, kThreads> gatherer(in, grad, lists, out, first_key);
  if (tiles > 0) {
    gatherer.seek(piece.first_tile);
    gatherer.load(shared.stages[0]);
  }
  commit_copies();
  for (int tile = 0; tile < tiles; ++tile) {
    wait_copies<0>();
    __syncthreads();  // the tile is there for all, and the one before has been read
    if (tile + 1 < tiles) gatherer.load(shared.stages[(tile + 1) % kStages]);
    commit_copies();
    const auto& stage = shared.stages[tile % kStages];
    float s[4] = {}, dp[4] = {};
    multiply(s, shared.k, m, stage.q, n * 8, lane);
    multiply(dp, shared.v, m, stage.d_o, n * 8, lane);
    const int row = n * 8 + pair * 2;
    const float2 lse = *reinterpret_cast<const float2*>(stage.lse + row), delta = *reinterpret_cast<const float2*>(stage.delta + row);
    const int2 limit = *reinterpret_cast<const int2*>(stage.limit + row);
    std::uint32_t p[2], ds[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int key = m * 16 + quad + 8 * half;
      const float p0 = key <= limit.x ? fast_exp2(fmaf(s[2 * half], scale, -lse.x)) : 0.0f;
      const float p1 = key <= limit.y ? fast_exp2(fmaf(s[2 * half + 1], scale, -lse.y)) : 0.0f;
      p[half] = pack(p0, p1);
      ds[half] = pack(p0 * (dp[2 * half] - delta.x), p1 * (dp[2 * half + 1] - delta.y));
    }
    // Words 0, 1 of a lane are its first 8 rows, words 2, 3 the others.
    reinterpret_cast<uint2*>(&shared.p[n / 2][m][lane])[n % 2] = make_uint2(p[0], p[1]);
    reinterpret_cast<uint2*>(&shared.ds[n / 2][m][lane])[n % 2] = make_uint2(ds[0], ds[1]);
    __syncthreads();
    accumulate<kLatent>(d_v, shared.p, stage.d_o, warp * kValueTiles, lane);
    accumulate<kLatentWidth>(d_k, shared.ds, stage.q, warp * kKeyTiles, lane);
  }
  wait_copies<0>();

#pragma unroll
  for (int part = 0; part < kKeyParts16; ++part) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int key = part * 16 + quad + 8 * half;
      if (key >= num_keys) continue;
      const std::int64_t row = first_row + key;
      float* const partial =
          grad.partial +
          ((static_cast<std::int64_t>(work.slots[piece.index] + piece.number) * work.key_tiles + key_tile) * kKeys + key) * (kLatentWidth + kLatent);
#pragma unroll
      for (int t = 0; t < kKeyTiles; ++t) {
        const int channel = (warp * kKeyTiles + t) * 8 + pair * 2;
        const float a = d_k[part][t][2 * half] * sizes.scale, b = d_k[part][t][2 * half + 1] * sizes.scale;
        if (piece.pieces > 1) {
          *reinterpret_cast<float2*>(partial + channel) = make_float2(a, b);
        } else if (channel < kLatent) {
          put_pair(grad.d_k.at(row, 0) + channel, a, b, grad.add_to_keys);
        } else {
          *reinterpret_cast<float2*>(grad.shared + row * kRotated + channel - kLatent) = make_float2(a, b);
        }
      }
#pragma unroll
      for (int t = 0; t < kValueTiles; ++t) {
        const int channel = (warp * kValueTiles + t) * 8 + pair * 2;
        if (piece.pieces > 1) {
          *reinterpret_cast<float2*>(partial + kLatentWidth + channel) = make_float2(d_v[part][t][2 * half], d_v[part][t][2 * half + 1]);
        } else {
          put_pair(grad.d_v.at(row, 0) + channel, d_v[part][t][2 * half], d_v[part][t][2 * half + 1], grad.add_to_keys);
        }
      }
    }
  }
}

}  // namespace

bool latent_key_gradient(Stream& stream, const NsaSelectedBackward& args, const float* delta) {
  if (!is_latent(args) || !aligned16(args.d_o) || !aligned16(args.d_k) || !aligned16(args.d_v)) return false;
  const char* const op = args.kName;
  const auto queue = native(stream);
  const SelectedInputs<bf16> in = selected_inputs<bf16>(args);
  const SelectedSizes& sizes = in.sizes;
  const BlockLists index(stream, sizes, in.blocks);
  const HeadSegments segments(sizes);
  const Lists lists{index.view(), segments, segments.count, kRows};
  const KeyPlan plan(stream, sizes, lists, {0, 1}, kKeys, kLatentKeyPieces, sizes.tokens);
  const Work& work = plan.work();
  Tensor partial = Tensor::empty({plan.slots(), work.key_tiles, kKeys, kLatentWidth + kLatent}, DType::kF32, stream.device());
  Tensor rotated = Tensor::empty({args.k.tokens, kRotated}, DType::kF32, stream.device());
  const KeyGradients grad{rows_of<bf16>(args.d_o), args.lse.as<float>(), delta,           rows_of<bf16>(args.d_k), rows_of<bf16>(args.d_v),
                          rotated.as<float>(),     partial.as<float>(),  args.add_to_keys};
  allow_shared_memory(key_gradient_kernel, sizeof(Shared), op);
  key_gradient_kernel<<<plan.blocks(), kThreads, sizeof(Shared), queue>>>(in, grad, lists, work);
  check_launch(op);
  if (plan.slots() > 0) {
    const dim3 grid(static_cast<unsigned>(work.outputs * work.key_tiles), kKeys);
    sum_pieces_kernel<kLatentWidth, kRotated, kLatent, kKeys, kThreads><<<grid, kThreads, 0, queue>>>(sizes, grad, work);
    check_launch(op);
  }
  sum_shared<bf16>(stream, sizes, rotated.as<float>(), rows_of<bf16>(args.d_k_shared), args.add_to_keys);
  return true;
}

}  // namespace hadal::kernels::cuda
