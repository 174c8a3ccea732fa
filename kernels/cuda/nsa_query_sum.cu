// d_q over selected blocks from kept d_s: a warp owns 16 heads of a token and runs through its blocks, whose keys come from the cache
// straight into registers as the product wants them (nsa_mma.cuh), a step of 16 keys ahead.
#include "kernels/cuda/check.h"
#include "kernels/cuda/nsa_query_sum.cuh"

namespace hadal::kernels::cuda {
namespace {

constexpr int kWarps = 4;

// grid (tokens of the turn / kWarps, parts of 16 heads): neighbours run together, the keys of one head after another's.
template <int kWidth, int kShared>
__global__ void __launch_bounds__(kWarps* kWarp, kWidth > 128 ? 2 : 3)
    query_sum_kernel(const __grid_constant__ SelectedInputs<bf16> in, const __grid_constant__ ScoreGradients scores, HeadRows<bf16> d_q) {
  const SelectedSizes& sizes = in.sizes;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, quad = lane / 4, pair = lane % 4, part = static_cast<int>(blockIdx.y);
  const std::int64_t in_turn = static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp, token = scores.first_token + in_turn;
  if (in_turn >= scores.tokens) return;
  const std::int64_t sequence = token / sizes.tokens, seen = sizes.query_start + token % sizes.tokens + 1;
  const int head = scores.first_head + part * kGroupRows, visible = static_cast<int>(seen < sizes.keys ? seen : sizes.keys);
  const KeySource<kShared> source{in.k,           in.k_shared, sequence * sizes.keys, head / sizes.heads_per_key(), static_cast<int>(sizes.keys) - 1,
                                  sizes.key_width};
  const std::int32_t* const list = in.blocks + (token * sizes.groups + head / sizes.heads_per_group()) * sizes.chosen;

  int slot = -1, key = 0, end = 0, step = 0;
  const auto next = [&] {  // 16 keys that the token sees some of
    key += 16;
    ++step;
    while (key >= end) {
      if (++slot >= sizes.chosen) return false;
      const int block = list[slot];
      if (block < 0 || block > (visible - 1) / sizes.select_block) continue;
      key = block * sizes.select_block;
      end = min(key + sizes.select_block, visible);
      step = 0;
    }
    return true;
  };
  struct Step {
    RowBuffer<kWidth> keys;
    uint4 ds;
  };
  const auto load = [&](Step& to) {
    to.ds = __ldcs(scores.at(sizes, token * sizes.chosen + slot, part, step) + lane);
    to.keys.load(source, key, lane);
  };
  float sum[kWidth / 8][4] = {};
  const auto add = [&](const Step& from) {
    const std::uint32_t a[4] = {from.ds.x, from.ds.y, from.ds.z, from.ds.w};
    add_rows<kWidth>(sum, from.keys, a);
  };
  Step steps[2];
  bool more = next();
  if (more) load(steps[0]);
  while (more) {
    more = next();
    if (more) load(steps[1]);
    add(steps[0]);
    if (!more) break;
    more = next();
    if (more) load(steps[0]);
    add(steps[1]);
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) store_row<kWidth>(sum, half, sizes.scale, d_q.at(token, head + quad + 8 * half), pair);
}

}  // namespace

template <int kWidth, int kShared>
void query_sum(Stream& stream, const SelectedInputs<bf16>& in, const ScoreGradients& scores, HeadRows<bf16> d_q) {
  const dim3 grid(static_cast<unsigned>((scores.tokens + kWarps - 1) / kWarps), static_cast<unsigned>(scores.parts));
  query_sum_kernel<kWidth, kShared><<<grid, kWarps * kWarp, 0, native(stream)>>>(in, scores, d_q);
  check_launch("nsa: d_q from d_s");
}

template void query_sum<64, 0>(Stream&, const SelectedInputs<bf16>&, const ScoreGradients&, HeadRows<bf16>);
template void query_sum<128, 0>(Stream&, const SelectedInputs<bf16>&, const ScoreGradients&, HeadRows<bf16>);
template void query_sum<192, 0>(Stream&, const SelectedInputs<bf16>&, const ScoreGradients&, HeadRows<bf16>);
template void query_sum<192, 64>(Stream&, const SelectedInputs<bf16>&, const ScoreGradients&, HeadRows<bf16>);

}  // namespace hadal::kernels::cuda
