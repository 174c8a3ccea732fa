// The selected branch of MLA in its absorbed form on tensor cores: one latent entry of 512 and a rotated key of 64 for all heads, whose
// values are the latents. Four warps own 16 rows (heads of a token, or of several where those are few): each makes the scores of 16 of 64
// keys, which they trade through shared memory, and 128 of the 512 channels of the result. Entries come straight from the cache into
// fragments (nsa_mma.cuh), so that the values are found in the L1 cache that the keys have filled.
#include "kernels/cuda/check.h"
#include "kernels/cuda/nsa_fragments.cuh"
#include "kernels/cuda/nsa_latent.cuh"
#include "kernels/cuda/nsa_selected.cuh"

namespace hadal::kernels::cuda {
namespace {

constexpr int kWarps = 4, kThreads = kWarps * kWarp;
constexpr int kStep = 16 * kWarps;
constexpr int kDepths = kLatentWidth / 32, kKeyDepths = kLatent / 32;
constexpr int kChannels = kLatent / kWarps;  // of a warp
constexpr int kAtOnce = 6;                   // depths of keys in flight
static_assert(kDepths % kAtOnce == 0);

// keep_rows by all warps.
template <int kSteps>
__device__ void keep_all(uint4* to, const HeadRows<const bf16>& x, const TileRows& rows) {
  for (int i = static_cast<int>(threadIdx.x); i < kSteps * 2 * kWarp; i += kThreads) {
    const int lane = i % kWarp, half = i / kWarp % 2, c = i / kWarp / 2, row = lane / 4 + 8 * half;
    to[i] = load_row16(x.at(rows.token(row), rows.head(row)) + c * 32 + lane % 4 * 8);
  }
}

// kAtOnce depths of a warp's 16 keys.
struct KeyDepths {
  uint4 at[kAtOnce][2];

  __device__ void load(const KeySource<kRotated>& from, int key, int first, int lane) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int c = 0; c < kAtOnce; ++c) at[c][half] = load_row16(from.at(key + lane / 4 + 8 * half, (first + c) * 32) + lane % 4 * 8);
    }
  }
};

// s[n] of 16 keys at `key`, whose first depths are in depths[0].
__device__ void find_scores(float (&s)[2][4], const uint4* q, KeyDepths (&depths)[2], const KeySource<kRotated>& from, int key, int lane) {
  float odd[2][4] = {};  // two chains of products a tile
#pragma unroll
  for (int part = 0; part < kDepths / kAtOnce; ++part) {
    if (part + 1 < kDepths / kAtOnce) depths[(part + 1) % 2].load(from, key, (part + 1) * kAtOnce, lane);
#pragma unroll
    for (int c = 0; c < kAtOnce; ++c) {
      const int depth = part * kAtOnce + c;
      mma32(c % 2 == 0 ? s : odd, q[depth * 2 * kWarp + lane], q[(depth * 2 + 1) * kWarp + lane], depths[part % 2].at[c]);
    }
  }
#pragma unroll
  for (int n = 0; n < 2; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) s[n][i] += odd[n][i];
  }
}

struct Place {
  TileRows rows;
  int group;
  KeySource<kRotated> keys;
  KeySource<0> values;

  __device__ Place(const SelectedInputs<bf16>& in, const HeadSegments& segments)
      : rows(in.sizes, segments, blockIdx.x, static_cast<int>(blockIdx.y)),
        group(rows.first_head / in.sizes.heads_per_group()),
        keys{in.k, in.k_shared, rows.sequence * in.sizes.keys, 0, static_cast<int>(in.sizes.keys) - 1, kLatent},
        values{in.v, in.v, rows.sequence * in.sizes.keys, 0, static_cast<int>(in.sizes.keys) - 1, kLatent} {}
};

// grid (tiles of tokens, segments * tiles of heads), as for the kernel below.
template <template <int> class Walk>
__global__ void __launch_bounds__(kThreads, 2) forward_kernel(SelectedInputs<bf16> in, HeadSegments segments, HeadRows<bf16> o, float* lse) {
  __shared__ uint4 q[kDepths * 2 * kWarp], probabilities[kWarps][kWarp];
  __shared__ float parts[kWarps][kTileRows];
  extern __shared__ std::uint32_t bits[];
  const SelectedSizes& sizes = in.sizes;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp, quad = lane / 4, pair = lane % 4;
  Place place(in, segments);
  const TileRows& rows = place.rows;
  place.values.k.data += warp * kChannels;
  keep_all<kDepths>(q, in.q, rows);
  __syncthreads();

  Walk<kStep> walk(sizes, rows, in.blocks, place.group, bits + warp * segments.tokens_of_tile() * UnionWalk<1>::words_of(sizes), lane);
  float out[kChannels / 8][4] = {};
  float row_max[2] = {-INFINITY, -INFINITY}, row_sum[2] = {};
  const float scale = sizes.scale * kLog2E;
  KeyDepths depths[2];
  bool more = walk.next();
  if (more) depths[0].load(place.keys, walk.key + 16 * warp, 0, lane);
  while (more) {
    const int key = walk.key, limit[2] = {walk.limit(rows.token_index(quad)), walk.limit(rows.token_index(quad + 8))};
    float s[2][4] = {};
    find_scores(s, q, depths, place.keys, key + 16 * warp, lane);
    RowBuffer<kChannels> values[2];
    values[0].load(place.values, key, lane);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float largest = -INFINITY;
#pragma unroll
      for (int n = 0; n < 2; ++n) {
#pragma unroll
        for (int i = 2 * half; i < 2 * half + 2; ++i) {
          s[n][i] = key + 16 * warp + n * 8 + pair * 2 + i % 2 < limit[half] ? s[n][i] * scale : -INFINITY;
          largest = fmaxf(largest, s[n][i]);
        }
      }
      largest = quad_max(largest);
      if (pair == 0) parts[warp][quad + 8 * half] = largest;
    }
    __syncthreads();  // the probabilities of the step before have been read, too
    float keep[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float largest = row_max[half];
#pragma unroll
      for (int w = 0; w < kWarps; ++w) largest = fmaxf(largest, parts[w][quad + 8 * half]);
      const float base = largest == -INFINITY ? 0.0f : largest;  // a row that has seen nothing yet
      keep[half] = fast_exp2(row_max[half] - base);
      row_max[half] = largest;
      row_sum[half] *= keep[half];
#pragma unroll
      for (int n = 0; n < 2; ++n) {
#pragma unroll
        for (int i = 2 * half; i < 2 * half + 2; ++i) {
          s[n][i] = fast_exp2(s[n][i] - base);
          row_sum[half] += s[n][i];
        }
      }
    }
    probabilities[warp][lane] = make_uint4(pack(s[0][0], s[0][1]), pack(s[0][2], s[0][3]), pack(s[1][0], s[1][1]), pack(s[1][2], s[1][3]));
    more = walk.next();
    if (more) depths[0].load(place.keys, walk.key + 16 * warp, 0, lane);
#pragma unroll
    for (int n = 0; n < kChannels / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) out[n][i] *= keep[i / 2];
    }
    __syncthreads();
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      if (w + 1 < kWarps) values[(w + 1) % 2].load(place.values, key + 16 * (w + 1), lane);
      const uint4 p = probabilities[w][lane];
      add_rows<kChannels>(out, values[w % 2], {p.x, p.y, p.z, p.w});
    }
  }

#pragma unroll
  for (int half = 0; half < 2; ++half) row_sum[half] = quad_sum(row_sum[half]);
  __syncthreads();
  if (pair == 0) {
    parts[warp][quad] = row_sum[0];
    parts[warp][quad + 8] = row_sum[1];
  }
  __syncthreads();
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = quad + 8 * half;
    if (row >= rows.count) continue;
    float sum = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) sum += parts[w][row];
    const float inverse = sum == 0.0f ? 0.0f : 1.0f / sum;
    if (warp == 0 && pair == 0) lse[rows.token(row) * sizes.heads + rows.head(row)] = sum == 0.0f ? -INFINITY : row_max[half] * kLn2 + logf(sum);
    store_row<kChannels>(out, half, inverse, o.at(rows.token(row), rows.head(row)) + warp * kChannels, pair);
  }
}

template <template <int> class Walk>
__global__ void __launch_bounds__(kThreads, 2) query_gradient_kernel(SelectedInputs<bf16> in, HeadSegments segments, HeadRows<const bf16> d_o,
                                                                     const float* lse, const float* delta, HeadRows<bf16> d_q) {
  __shared__ uint4 q[kDepths * 2 * kWarp], d_out[kKeyDepths * 2 * kWarp], gradients[2][kWarps][kWarp];
  extern __shared__ std::uint32_t bits[];
  const SelectedSizes& sizes = in.sizes;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp, quad = lane / 4, pair = lane % 4;
  Place place(in, segments);
  const TileRows& rows = place.rows;
  KeySource<0> columns{in.k, in.k, place.keys.first, 0, place.keys.last, kLatent},
      rotated{in.k_shared, in.k_shared, place.keys.first, 0, place.keys.last, kRotated};
  columns.k.data += warp * kChannels;
  keep_all<kDepths>(q, in.q, rows);
  keep_all<kKeyDepths>(d_out, d_o, rows);
  __syncthreads();
  const float scale = sizes.scale * kLog2E;
  float row_lse[2], row_delta[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const std::int64_t at = rows.token(quad + 8 * half) * sizes.heads + rows.head(quad + 8 * half);
    row_lse[half] = lse[at] * kLog2E;
    row_delta[half] = delta[at];
  }

  Walk<kStep> walk(sizes, rows, in.blocks, place.group, bits + warp * segments.tokens_of_tile() * UnionWalk<1>::words_of(sizes), lane);
  float sum[kChannels / 8][4] = {}, sum_rotated[kRotated / 8][4] = {};  // the latter over the warp's own keys
  KeyDepths depths[2];
  bool more = walk.next();
  if (more) depths[0].load(place.keys, walk.key + 16 * warp, 0, lane);
  for (int turn = 0; more; turn ^= 1) {
    const int key = walk.key, own = key + 16 * warp, limit[2] = {walk.limit(rows.token_index(quad)), walk.limit(rows.token_index(quad + 8))};
    float s[2][4] = {}, dp[2][4] = {}, odd[2][4] = {};
    find_scores(s, q, depths, place.keys, own, lane);
#pragma unroll
    for (int part = 0; part < kKeyDepths / 4; ++part) {
      uint4 values[4][2];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const bf16* const from = place.values.at(own + quad + 8 * half, part * 128) + pair * 8;
#pragma unroll
        for (int c = 0; c < 4; ++c) values[c][half] = load_row16(from + c * 32);
      }
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        const int depth = part * 4 + c;
        mma32(c % 2 == 0 ? dp : odd, d_out[depth * 2 * kWarp + lane], d_out[(depth * 2 + 1) * kWarp + lane], values[c]);
      }
    }
    std::uint32_t ds[4];
#pragma unroll
    for (int part = 0; part < 4; ++part) {
      const int n = part / 2, half = part % 2;
      float d[2];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const bool seen = own + n * 8 + pair * 2 + i < limit[half];
        d[i] =
            seen ? fast_exp2(fmaf(s[n][2 * half + i], scale, -row_lse[half])) * (dp[n][2 * half + i] + odd[n][2 * half + i] - row_delta[half]) : 0.0f;
      }
      ds[part] = pack(d[0], d[1]);
    }
    gradients[turn][warp][lane] = make_uint4(ds[0], ds[1], ds[2], ds[3]);
    RowBuffer<kChannels> buffers[2];
    buffers[0].load(columns, key, lane);
    {
      RowBuffer<kRotated> shared;
      shared.load(rotated, own, lane);
      add_rows<kRotated>(sum_rotated, shared, ds);
    }
    more = walk.next();
    __syncthreads();  // two steps' gradients are kept: nobody is more than one behind
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      if (w + 1 < kWarps) buffers[(w + 1) % 2].load(columns, key + 16 * (w + 1), lane);
      const uint4 a = gradients[turn][w][lane];
      add_rows<kChannels>(sum, buffers[w % 2], {a.x, a.y, a.z, a.w});
    }
    if (more) depths[0].load(place.keys, walk.key + 16 * warp, 0, lane);
  }

#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = quad + 8 * half;
    if (row < rows.count) store_row<kChannels>(sum, half, sizes.scale, d_q.at(rows.token(row), rows.head(row)) + warp * kChannels, pair);
  }
  // The rotated part: the warps' sums, added up in their order, two tiles a warp.
  static_assert(sizeof(q) >= kWarps * kRotated / 8 * kWarp * sizeof(float4));
  auto* const partial = reinterpret_cast<float4*>(q);
  __syncthreads();
#pragma unroll
  for (int n = 0; n < kRotated / 8; ++n) {
    partial[(warp * (kRotated / 8) + n) * kWarp + lane] = make_float4(sum_rotated[n][0], sum_rotated[n][1], sum_rotated[n][2], sum_rotated[n][3]);
  }
  __syncthreads();
  float total[2][4] = {};
#pragma unroll
  for (int n = 0; n < 2; ++n) {
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const float4 x = partial[(w * (kRotated / 8) + 2 * warp + n) * kWarp + lane];
      total[n][0] += x.x;
      total[n][1] += x.y;
      total[n][2] += x.z;
      total[n][3] += x.w;
    }
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = quad + 8 * half;
    if (row >= rows.count) continue;
    bf16* const to = d_q.at(rows.token(row), rows.head(row)) + kLatent + warp / 2 * 32 + pair * 8 + warp % 2 * 4;
    *reinterpret_cast<uint2*>(to) = make_uint2(pack(total[0][2 * half] * sizes.scale, total[0][2 * half + 1] * sizes.scale),
                                               pack(total[1][2 * half] * sizes.scale, total[1][2 * half + 1] * sizes.scale));
  }
}

dim3 grid_of(const SelectedSizes& sizes, const HeadSegments& segments) {
  const std::int64_t each = segments.tokens_of_tile();
  return {static_cast<unsigned>(sizes.batch * ((sizes.tokens + each - 1) / each)), static_cast<unsigned>(segments.count * segments.tiles())};
}

}  // namespace

bool latent_forward(Stream& stream, const NsaSelectedForward& args) {
  if (!is_latent(args) || !aligned16(args.o) || walk_bytes(selected_sizes(args), kWarps) > kMostWalkBytes) return false;
  const SelectedInputs<bf16> in = selected_inputs<bf16>(args);
  const HeadSegments segments(in.sizes);
  const auto kernel = segments.tokens_of_tile() > 1 ? forward_kernel<UnionWalk> : forward_kernel<TokenWalk>;
  const std::size_t shared = walk_bytes(in.sizes, kWarps);
  allow_shared_memory(kernel, 24 * 1024 + shared, args.kName);
  kernel<<<grid_of(in.sizes, segments), kThreads, shared, native(stream)>>>(in, segments, rows_of<bf16>(args.o), args.lse.as<float>());
  check_launch(args.kName);
  return true;
}

bool latent_query_gradient(Stream& stream, const NsaSelectedBackward& args, const float* delta) {
  if (!is_latent(args) || !aligned16(args.d_o) || !aligned16(args.d_q) || walk_bytes(selected_sizes(args), kWarps) > kMostWalkBytes) return false;
  const SelectedInputs<bf16> in = selected_inputs<bf16>(args);
  const HeadSegments segments(in.sizes);
  const auto kernel = segments.tokens_of_tile() > 1 ? query_gradient_kernel<UnionWalk> : query_gradient_kernel<TokenWalk>;
  const std::size_t shared = walk_bytes(in.sizes, kWarps);
  allow_shared_memory(kernel, 40 * 1024 + shared, args.kName);
  kernel<<<grid_of(in.sizes, segments), kThreads, shared, native(stream)>>>(in, segments, rows_of<bf16>(args.d_o), args.lse.as<float>(), delta,
                                                                            rows_of<bf16>(args.d_q));
  check_launch(args.kName);
  return true;
}

}  // namespace hadal::kernels::cuda
