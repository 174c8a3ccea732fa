// Gradients of attention over selected blocks for bf16 heads of 64, 128, 192/128 or 128+64/128 on tensor cores: of keys, block by block from the
// lists of tokens that read it (nsa_key_gradient.cu); of queries, from the d_s that was kept on the way, or, where heads do not come by 16 or
// their d_s is too much to keep, as forward goes (a warp 16 rows).
#include "kernels/cuda/check.h"
#include "kernels/cuda/nsa_fragments.cuh"
#include "kernels/cuda/nsa_heads_plan.cuh"
#include "kernels/cuda/nsa_key_gradient.cuh"
#include "kernels/cuda/nsa_query_sum.cuh"
#include "kernels/cuda/nsa_selected.cuh"

namespace hadal::kernels::cuda {
namespace {

constexpr int kWarps = 4;

template <int kWidth, int kShared, int kValue>
__global__ void __launch_bounds__(kWarps* kWarp, 2)
    query_gradient_kernel(SelectedInputs<bf16> in, HeadSegments segments, std::int64_t tiles, HeadRows<const bf16> d_o, const float* lse,
                          const float* delta, HeadRows<bf16> d_q) {
  constexpr int kParts = kKeyParts<kWidth>, kStep = 16 * kParts;
  __shared__ uint4 kept_q[kWarps][kWidth / 32 * 2 * kWarp], kept_d_o[kWarps][kValue / 32 * 2 * kWarp];
  const SelectedSizes& sizes = in.sizes;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp, quad = lane / 4, pair = lane % 4;
  const std::int64_t index = static_cast<std::int64_t>(blockIdx.x) * kWarps + warp;
  if (index >= tiles) return;
  const TileRows rows(sizes, segments, index, static_cast<int>(blockIdx.y));
  const int kv = rows.first_head / sizes.heads_per_key(), group = rows.first_head / sizes.heads_per_group();
  const int last = static_cast<int>(sizes.keys) - 1;
  const KeySource<kShared> key_source{in.k, in.k_shared, rows.sequence * sizes.keys, kv, last, sizes.key_width};
  const KeySource<0> value_source{in.v, in.v, rows.sequence * sizes.keys, kv, last, sizes.value_width};
  const uint4* const q = kept_q[warp];
  const uint4* const d_out = kept_d_o[warp];
  keep_rows<kWidth>(kept_q[warp], in.q, rows, lane);
  keep_rows<kValue>(kept_d_o[warp], d_o, rows, lane);
  __syncwarp();
  const float scale = sizes.scale * kLog2E;
  float row_lse[2], row_delta[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const std::int64_t at = rows.token(quad + 8 * half) * sizes.heads + rows.head(quad + 8 * half);
    row_lse[half] = lse[at] * kLog2E;
    row_delta[half] = delta[at];
  }

  TokenWalk<kStep> walk(sizes, rows, in.blocks, group, nullptr, lane);
  float sum[kWidth / 8][4] = {};
  RowBuffer<kWidth> keys[kParts];
  bool more = walk.next();
  if (more) {
#pragma unroll
    for (int i = 0; i < kParts; ++i) keys[i].load(key_source, walk.key + 16 * i, lane);
  }
  while (more) {
    const int key = walk.key, limit[2] = {walk.limit(rows.token_index(quad)), walk.limit(rows.token_index(quad + 8))};
    RowBuffer<kValue> values[kParts];
    float s[2 * kParts][4] = {}, dp[2 * kParts][4] = {};
#pragma unroll
    for (int c = 0; c < kWidth / 32; ++c) {
      const uint4 low = q[c * 2 * kWarp + lane], high = q[(c * 2 + 1) * kWarp + lane];
      uint4 b[2 * kParts];
#pragma unroll
      for (int n = 0; n < 2 * kParts; ++n) b[n] = keys[n / 2].at[c][n % 2];
      mma32(s, low, high, b);
    }
#pragma unroll
    for (int i = 0; i < kParts; ++i) values[i].load(value_source, key + 16 * i, lane);
#pragma unroll
    for (int n = 0; n < 2 * kParts; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const bool seen = key + n * 8 + pair * 2 + i % 2 < limit[i / 2];
        s[n][i] = seen ? fast_exp2(fmaf(s[n][i], scale, -row_lse[i / 2])) : 0.0f;
      }
    }
#pragma unroll
    for (int c = 0; c < kValue / 32; ++c) {
      const uint4 low = d_out[c * 2 * kWarp + lane], high = d_out[(c * 2 + 1) * kWarp + lane];
      uint4 b[2 * kParts];
#pragma unroll
      for (int n = 0; n < 2 * kParts; ++n) b[n] = values[n / 2].at[c][n % 2];
      mma32(dp, low, high, b);
    }
    more = walk.next();
#pragma unroll
    for (int i = 0; i < kParts; ++i) {
      std::uint32_t ds[4];
#pragma unroll
      for (int part = 0; part < 4; ++part) {
        const int n = 2 * i + part / 2, at = part % 2 * 2;
        ds[part] = pack(s[n][at] * (dp[n][at] - row_delta[part % 2]), s[n][at + 1] * (dp[n][at + 1] - row_delta[part % 2]));
      }
      add_rows<kWidth>(sum, keys[i], ds);
      if (more) keys[i].load(key_source, walk.key + 16 * i, lane);
    }
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = quad + 8 * half;
    if (row < rows.count) store_row<kWidth>(sum, half, sizes.scale, d_q.at(rows.token(row), rows.head(row)), pair);
  }
}

template <int kWidth, int kShared, int kValue>
void start(Stream& stream, const NsaSelectedBackward& args) {
  const SelectedInputs<bf16> in = selected_inputs<bf16>(args);
  const HeadSegments segments(in.sizes);
  Tensor delta = Tensor::empty({args.q.tokens, in.sizes.heads}, DType::kF32, stream.device());
  if (args.q.tokens > 0) row_products<bf16>(stream, in.sizes, rows_of<bf16>(args.o), rows_of<bf16>(args.d_o), delta.as<float>());
  if (args.q.tokens > 0 && !score_turns(shape_of(in.sizes)).keeps) {
    const std::int64_t tiles = in.sizes.batch * in.sizes.tokens;
    const dim3 grid(static_cast<unsigned>((tiles + kWarps - 1) / kWarps), static_cast<unsigned>(segments.count * segments.tiles()));
    query_gradient_kernel<kWidth, kShared, kValue><<<grid, kWarps * kWarp, 0, native(stream)>>>(
        in, segments, tiles, rows_of<bf16>(args.d_o), args.lse.as<float>(), delta.as<float>(), rows_of<bf16>(args.d_q));
    check_launch(args.kName);
  }
  if (args.k.tokens > 0) mma_key_gradient(stream, args, delta.as<float>());
}

}  // namespace

bool mma_backward(Stream& stream, const NsaSelectedBackward& args) {
  const SelectedSizes sizes = selected_sizes(args);
  if (args.q.dtype != DType::kBf16 || sizes.keys == 0 || !HeadSegments::possible(sizes) || is_key_major(shape_of(sizes)) ||
      !aligned16(args.q) || !aligned16(args.k) || !aligned16(args.k_shared) || !aligned16(args.v) || !aligned16(args.d_o) || !aligned16(args.d_q) ||
      !aligned16(args.d_k) || !aligned16(args.d_v)) {
    return false;
  }
  return visit_widths(sizes, [&]<int kWidth, int kShared, int kValue>() { start<kWidth, kShared, kValue>(stream, args); });
}

}  // namespace hadal::kernels::cuda
