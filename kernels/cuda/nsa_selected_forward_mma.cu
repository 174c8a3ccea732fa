// Attention over selected blocks for bf16 heads of 64, 128, 192/128 or 128+64/128 on tensor cores, where many heads share keys and selection.
// A warp owns the 16 rows of an mma, heads of a token, and runs through their blocks alone: keys and values go from the cache straight into
// registers in the layout of the fragments (nsa_mma.cuh), a product ahead. Shared memory holds the queries alone, so that most of it is L1
// cache: the warps of a multiprocessor own neighbouring tokens, and what they select in common is fetched once.
#include "kernels/cuda/check.h"
#include "kernels/cuda/nsa_fragments.cuh"
#include "kernels/cuda/nsa_heads_plan.cuh"
#include "kernels/cuda/nsa_selected.cuh"

namespace hadal::kernels::cuda {
namespace {

constexpr int kWarps = 4;

// grid (tiles of tokens of all sequences / kWarps, segments * tiles of heads): neighbours run together, the keys of one head after
// another's.
template <int kWidth, int kShared, int kValue>
__global__ void __launch_bounds__(kWarps* kWarp, 2)
    forward_kernel(SelectedInputs<bf16> in, HeadSegments segments, std::int64_t tiles, HeadRows<bf16> o, float* lse) {
  constexpr int kParts = kKeyParts<kWidth>, kStep = 16 * kParts, kDepths = kWidth / 32;
  __shared__ uint4 kept[kWarps][kDepths * 2 * kWarp];
  const SelectedSizes& sizes = in.sizes;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp, quad = lane / 4, pair = lane % 4;
  const std::int64_t index = static_cast<std::int64_t>(blockIdx.x) * kWarps + warp;
  if (index >= tiles) return;
  const TileRows rows(sizes, segments, index, static_cast<int>(blockIdx.y));
  const int kv = rows.first_head / sizes.heads_per_key(), group = rows.first_head / sizes.heads_per_group();
  const int last = static_cast<int>(sizes.keys) - 1;
  const KeySource<kShared> key_source{in.k, in.k_shared, rows.sequence * sizes.keys, kv, last, sizes.key_width};
  const KeySource<0> value_source{in.v, in.v, rows.sequence * sizes.keys, kv, last, sizes.value_width};
  const uint4* const q = kept[warp];
  keep_rows<kWidth>(kept[warp], in.q, rows, lane);
  __syncwarp();

  TokenWalk<kStep> walk(sizes, rows, in.blocks, group, nullptr, lane);
  float out[kValue / 8][4] = {};
  float row_max[2] = {-INFINITY, -INFINITY}, row_sum[2] = {};
  const float scale = sizes.scale * kLog2E;
  RowBuffer<kWidth> keys[kParts];
  bool more = walk.next();
  if (more) {
#pragma unroll
    for (int i = 0; i < kParts; ++i) keys[i].load(key_source, walk.key + 16 * i, lane);
  }
  while (more) {
    const int key = walk.key, limit[2] = {walk.limit(rows.token_index(quad)), walk.limit(rows.token_index(quad + 8))};
    RowBuffer<kValue> values[kParts];
    float s[2 * kParts][4] = {};
#pragma unroll
    for (int c = 0; c < kDepths; ++c) {
      const uint4 low = q[c * 2 * kWarp + lane], high = q[(c * 2 + 1) * kWarp + lane];
      uint4 b[2 * kParts];
#pragma unroll
      for (int n = 0; n < 2 * kParts; ++n) b[n] = keys[n / 2].at[c][n % 2];
      mma32(s, low, high, b);
    }
#pragma unroll
    for (int i = 0; i < kParts; ++i) values[i].load(value_source, key + 16 * i, lane);
    more = walk.next();

#pragma unroll
    for (int n = 0; n < 2 * kParts; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) s[n][i] = key + n * 8 + pair * 2 + i % 2 < limit[i / 2] ? s[n][i] * scale : -INFINITY;
    }
    float keep[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float largest = row_max[half];
#pragma unroll
      for (int n = 0; n < 2 * kParts; ++n) largest = fmaxf(largest, fmaxf(s[n][2 * half], s[n][2 * half + 1]));
      largest = quad_max(largest);
      const float base = largest == -INFINITY ? 0.0f : largest;  // a row that has seen nothing yet
      keep[half] = fast_exp2(row_max[half] - base);
      row_max[half] = largest;
      row_sum[half] *= keep[half];
#pragma unroll
      for (int n = 0; n < 2 * kParts; ++n) {
#pragma unroll
        for (int i = 2 * half; i < 2 * half + 2; ++i) {
          s[n][i] = fast_exp2(s[n][i] - base);
          row_sum[half] += s[n][i];
        }
      }
    }
    if (__any_sync(0xffffffffu, keep[0] != 1.0f || keep[1] != 1.0f)) {
#pragma unroll
      for (int n = 0; n < kValue / 8; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) out[n][i] *= keep[i / 2];
      }
    }
#pragma unroll
    for (int i = 0; i < kParts; ++i) {
      if (more) keys[i].load(key_source, walk.key + 16 * i, lane);
      const std::uint32_t p[4] = {pack(s[2 * i][0], s[2 * i][1]), pack(s[2 * i][2], s[2 * i][3]), pack(s[2 * i + 1][0], s[2 * i + 1][1]),
                                  pack(s[2 * i + 1][2], s[2 * i + 1][3])};
      add_rows<kValue>(out, values[i], p);
    }
  }

#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float sum = quad_sum(row_sum[half]);
    const int row = quad + 8 * half;
    if (row >= rows.count) continue;
    const std::int64_t token = rows.token(row);
    const int head = rows.head(row);
    const float inverse = sum == 0.0f ? 0.0f : 1.0f / sum;
    if (pair == 0) lse[token * sizes.heads + head] = sum == 0.0f ? -INFINITY : row_max[half] * kLn2 + logf(sum);
    store_row<kValue>(out, half, inverse, o.at(token, head), pair);
  }
}

template <int kWidth, int kShared, int kValue>
void start(Stream& stream, const NsaSelectedForward& args) {
  const SelectedInputs<bf16> in = selected_inputs<bf16>(args);
  const HeadSegments segments(in.sizes);
  const std::int64_t tiles = in.sizes.batch * in.sizes.tokens;
  const dim3 grid(static_cast<unsigned>((tiles + kWarps - 1) / kWarps), static_cast<unsigned>(segments.count * segments.tiles()));
  forward_kernel<kWidth, kShared, kValue>
      <<<grid, kWarps * kWarp, 0, native(stream)>>>(in, segments, tiles, rows_of<bf16>(args.o), args.lse.as<float>());
  check_launch(args.kName);
}

}  // namespace

bool mma_forward(Stream& stream, const NsaSelectedForward& args) {
  const SelectedSizes sizes = selected_sizes(args);
  if (args.q.dtype != DType::kBf16 || sizes.keys == 0 || !HeadSegments::possible(sizes) || is_key_major(shape_of(sizes)) ||
      !aligned16(args.q) || !aligned16(args.k) || !aligned16(args.k_shared) || !aligned16(args.v) || !aligned16(args.o)) {
    return false;
  }
  return visit_widths(sizes, [&]<int kWidth, int kShared, int kValue>() { start<kWidth, kShared, kValue>(stream, args); });
}

}  // namespace hadal::kernels::cuda
