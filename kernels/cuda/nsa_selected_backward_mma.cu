// Gradients of attention over selected blocks for bf16 heads of 128 (or 64) on tensor cores: of queries, as forward goes (a warp a token
// and up to 16 heads), of keys, block by block from the lists of tokens that read it.
#include "kernels/cuda/check.h"
#include "kernels/cuda/nsa_fragments.cuh"
#include "kernels/cuda/nsa_key_gradient.cuh"
#include "kernels/cuda/nsa_selected.cuh"

namespace hadal::kernels::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kStep = 32;  // keys at a time, in two halves of 16

// Rows quad and quad + 8 of 16 heads as A, in shared memory in the order of the lanes.
template <int kWidth>
__device__ void keep_rows(uint4* to, const HeadRows<const bf16>& x, std::int64_t token, int first_head, int heads, int lane) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const bf16* const from = x.at(token, first_head + min(lane / 4 + 8 * half, heads - 1)) + lane % 4 * 8;
#pragma unroll
    for (int c = 0; c < kWidth / 32; ++c) to[(c * 2 + half) * kWarp + lane] = load_row16(from + c * 32);
  }
}

template <int kWidth>
__global__ void __launch_bounds__(kWarps* kWarp, 2)
    query_gradient_kernel(SelectedInputs<bf16> in, HeadSegments segments, HeadRows<const bf16> d_o, const float* lse, const float* delta,
                          HeadRows<bf16> d_q) {
  constexpr int kSteps = kWidth / 32;
  __shared__ uint4 kept[kWarps][2][kSteps * 2 * kWarp];
  const SelectedSizes& sizes = in.sizes;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp, quad = lane / 4, pair = lane % 4;
  const std::int64_t token = static_cast<std::int64_t>(blockIdx.x) * kWarps + warp;
  if (token >= sizes.batch * sizes.tokens) return;
  const int segment = static_cast<int>(blockIdx.y) / segments.tiles(), tile = static_cast<int>(blockIdx.y) % segments.tiles();
  const int first_head = segment * segments.size + tile * kTileRows, heads = min(kTileRows, segments.size - tile * kTileRows);
  const int kv = first_head / sizes.heads_per_key(), group = first_head / sizes.heads_per_group();
  const std::int64_t first_key = token / sizes.tokens * sizes.keys;
  const int last = static_cast<int>(sizes.keys) - 1;
  const uint4* const q = kept[warp][0];
  const uint4* const d_out = kept[warp][1];
  keep_rows<kWidth>(kept[warp][0], in.q, token, first_head, heads, lane);
  keep_rows<kWidth>(kept[warp][1], d_o, token, first_head, heads, lane);
  __syncwarp();
  const float scale = sizes.scale * kLog2E;
  float row_lse[2], row_delta[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const std::int64_t at = token * sizes.heads + first_head + min(quad + 8 * half, heads - 1);
    row_lse[half] = lse[at] * kLog2E;
    row_delta[half] = delta[at];
  }

  KeyWalk<kStep> walk(sizes, in.blocks + (token * sizes.groups + group) * sizes.chosen, sizes.query_start + token % sizes.tokens);
  float sum[kWidth / 8][4] = {};
  RowBuffer<kWidth> keys[2];
  bool more = walk.next();
  if (more) {
#pragma unroll
    for (int i = 0; i < 2; ++i) keys[i].load(in.k, first_key, kv, walk.key + 16 * i, last, lane);
  }
  while (more) {
    const int key = walk.key, end = walk.end;
    RowBuffer<kWidth> values[2];
    ColumnBuffer<kWidth> columns[2];
    float s[4][4] = {}, dp[4][4] = {};
#pragma unroll
    for (int c = 0; c < kSteps; ++c) {
      const uint4 low = q[c * 2 * kWarp + lane], high = q[(c * 2 + 1) * kWarp + lane];
#pragma unroll
      for (int n = 0; n < 4; ++n) mma32(s[n], low, high, keys[n / 2].at[c][n % 2]);
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) values[i].load(in.v, first_key, kv, key + 16 * i, last, lane);
#pragma unroll
    for (int n = 0; n < 4; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const bool seen = key + n * 8 + pair * 2 + i % 2 < end;
        s[n][i] = seen ? fast_exp2(fmaf(s[n][i], scale, -row_lse[i / 2])) : 0.0f;
      }
    }
#pragma unroll
    for (int c = 0; c < kSteps; ++c) {
      const uint4 low = d_out[c * 2 * kWarp + lane], high = d_out[(c * 2 + 1) * kWarp + lane];
#pragma unroll
      for (int n = 0; n < 4; ++n) mma32(dp[n], low, high, values[n / 2].at[c][n % 2]);
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) columns[i].load(in.k, first_key, kv, key + 16 * i, last, lane);
    more = walk.next();
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      std::uint32_t ds[4];
#pragma unroll
      for (int part = 0; part < 4; ++part) {
        const int n = 2 * i + part / 2, at = part % 2 * 2;
        ds[part] = pack(s[n][at] * (dp[n][at] - row_delta[part % 2]), s[n][at + 1] * (dp[n][at + 1] - row_delta[part % 2]));
      }
      add_rows<kWidth>(sum, columns[i], ds);
      if (more) keys[i].load(in.k, first_key, kv, walk.key + 16 * i, last, lane);
    }
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    if (quad + 8 * half < heads) store_row<kWidth>(sum, half, sizes.scale, d_q.at(token, first_head + quad + 8 * half), pair);
  }
}

template <int kWidth>
void start(Stream& stream, const NsaSelectedBackward& args) {
  const SelectedInputs<bf16> in = selected_inputs<bf16>(args);
  const HeadSegments segments(in.sizes);
  Tensor delta = Tensor::empty({args.q.tokens, in.sizes.heads}, DType::kF32, stream.device());
  if (args.q.tokens > 0) {
    row_products<bf16>(stream, in.sizes, rows_of<bf16>(args.o), rows_of<bf16>(args.d_o), delta.as<float>());
    const dim3 grid(static_cast<unsigned>((args.q.tokens + kWarps - 1) / kWarps), static_cast<unsigned>(segments.count * segments.tiles()));
    query_gradient_kernel<kWidth><<<grid, kWarps * kWarp, 0, native(stream)>>>(in, segments, rows_of<bf16>(args.d_o), args.lse.as<float>(),
                                                                             delta.as<float>(), rows_of<bf16>(args.d_q));
    check_launch(args.kName);
  }
  if (args.k.tokens > 0) mma_key_gradient(stream, args, delta.as<float>());
}

}  // namespace

bool mma_backward(Stream& stream, const NsaSelectedBackward& args) {
  const SelectedSizes sizes = selected_sizes(args);
  if (args.q.dtype != DType::kBf16 || sizes.shared_width > 0 || sizes.key_width != sizes.value_width || !HeadSegments::possible(sizes) ||
      !aligned16(args.q) || !aligned16(args.k) || !aligned16(args.v) || !aligned16(args.d_o) || !aligned16(args.d_q) || !aligned16(args.d_k) ||
      !aligned16(args.d_v)) {
    return false;
  }
  if (sizes.key_width == 128) {
    start<128>(stream, args);
  } else if (sizes.key_width == 64) {
    start<64>(stream, args);
  } else {
    return false;
  }
  return true;
}

}  // namespace hadal::kernels::cuda
