// Attention over selected blocks for bf16 heads of 128 (or 64) on tensor cores. A warp owns a token and up to 16 heads that share keys
// and selection, the 16 rows of an mma, and runs through its blocks alone: keys and values go from the cache straight into registers
// in the layout of the fragments (nsa_mma.cuh), two buffers ahead. No shared memory is used, so all of it is L1 cache: the warps of a
// multiprocessor own neighbouring tokens, and what they select in common is fetched once.
#include "kernels/cuda/check.h"
#include "kernels/cuda/nsa_fragments.cuh"
#include "kernels/cuda/nsa_selected.cuh"

namespace hadal::kernels::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kStep = 32;  // keys at a time, in two halves of 16

// grid (tokens of all sequences / kWarps, segments * tiles): neighbours run together, the keys of one head after another's.
template <int kWidth, int kValue>
__global__ void __launch_bounds__(kWarps* kWarp, 2) forward_kernel(SelectedInputs<bf16> in, HeadSegments segments, HeadRows<bf16> o, float* lse) {
  const SelectedSizes& sizes = in.sizes;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, quad = lane / 4, pair = lane % 4;
  const std::int64_t token = static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (token >= sizes.batch * sizes.tokens) return;
  const int segment = static_cast<int>(blockIdx.y) / segments.tiles(), tile = static_cast<int>(blockIdx.y) % segments.tiles();
  const int first_head = segment * segments.size + tile * kTileRows, heads = min(kTileRows, segments.size - tile * kTileRows);
  const int kv = first_head / sizes.heads_per_key(), group = first_head / sizes.heads_per_group();
  const std::int64_t b = token / sizes.tokens, first_key = b * sizes.keys;
  const int last = static_cast<int>(sizes.keys) - 1;

  uint4 q[kWidth / 32][2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const bf16* const from = in.q.at(token, first_head + min(quad + 8 * half, heads - 1)) + pair * 8;
#pragma unroll
    for (int c = 0; c < kWidth / 32; ++c) q[c][half] = load_row16(from + c * 32);
  }

  KeyWalk<kStep> walk(sizes, in.blocks + (token * sizes.groups + group) * sizes.chosen, sizes.query_start + token % sizes.tokens);
  float out[kValue / 8][4] = {};
  float row_max[2] = {-INFINITY, -INFINITY}, row_sum[2] = {};
  const float scale = sizes.scale * kLog2E;
  RowBuffer<kWidth> keys[2];
  bool more = walk.next();
  if (more) {
#pragma unroll
    for (int i = 0; i < 2; ++i) keys[i].load(in.k, first_key, kv, walk.key + 16 * i, last, lane);
  }
  while (more) {
    const int key = walk.key, end = walk.end;
    ColumnBuffer<kValue> values[2];
    float s[4][4] = {};
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int c = 0; c < kWidth / 32; ++c) {
        mma32(s[2 * i], q[c][0], q[c][1], keys[i].at[c][0]);
        mma32(s[2 * i + 1], q[c][0], q[c][1], keys[i].at[c][1]);
      }
      values[i].load(in.v, first_key, kv, key + 16 * i, last, lane);
    }
    more = walk.next();

#pragma unroll
    for (int n = 0; n < 4; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) s[n][i] *= scale;
    }
    if (key + kStep > end) {
#pragma unroll
      for (int n = 0; n < 4; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          if (key + n * 8 + pair * 2 + i % 2 >= end) s[n][i] = -INFINITY;
        }
      }
    }
    float keep[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float largest = row_max[half];
#pragma unroll
      for (int n = 0; n < 4; ++n) largest = fmaxf(largest, fmaxf(s[n][2 * half], s[n][2 * half + 1]));
      largest = quad_max(largest);  // finite: a step has at least one key
      keep[half] = fast_exp2(row_max[half] - largest);
      row_max[half] = largest;
      row_sum[half] *= keep[half];
#pragma unroll
      for (int n = 0; n < 4; ++n) {
#pragma unroll
        for (int i = 2 * half; i < 2 * half + 2; ++i) {
          s[n][i] = fast_exp2(s[n][i] - largest);
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
    for (int i = 0; i < 2; ++i) {
      const std::uint32_t p[4] = {pack(s[2 * i][0], s[2 * i][1]), pack(s[2 * i][2], s[2 * i][3]), pack(s[2 * i + 1][0], s[2 * i + 1][1]),
                                  pack(s[2 * i + 1][2], s[2 * i + 1][3])};
      add_rows<kValue>(out, values[i], p);
      if (more) keys[i].load(in.k, first_key, kv, walk.key + 16 * i, last, lane);
    }
  }

#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const float sum = quad_sum(row_sum[half]);
    const int row = quad + 8 * half;
    if (row >= heads) continue;
    const float inverse = sum == 0.0f ? 0.0f : 1.0f / sum;
    if (pair == 0) lse[token * sizes.heads + first_head + row] = sum == 0.0f ? -INFINITY : row_max[half] * kLn2 + logf(sum);
    store_row<kValue>(out, half, inverse, o.at(token, first_head + row), pair);
  }
}

template <int kWidth>
void start(Stream& stream, const NsaSelectedForward& args) {
  const SelectedInputs<bf16> in = selected_inputs<bf16>(args);
  const HeadSegments segments(in.sizes);
  const dim3 grid(static_cast<unsigned>((args.q.tokens + kWarps - 1) / kWarps), static_cast<unsigned>(segments.count * segments.tiles()));
  forward_kernel<kWidth, kWidth><<<grid, kWarps * kWarp, 0, native(stream)>>>(in, segments, rows_of<bf16>(args.o), args.lse.as<float>());
  check_launch(args.kName);
}

}  // namespace

bool mma_forward(Stream& stream, const NsaSelectedForward& args) {
  const SelectedSizes sizes = selected_sizes(args);
  if (args.q.dtype != DType::kBf16 || sizes.shared_width > 0 || sizes.key_width != sizes.value_width || !HeadSegments::possible(sizes) ||
      !aligned16(args.q) || !aligned16(args.k) || !aligned16(args.v) || !aligned16(args.o)) {
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
