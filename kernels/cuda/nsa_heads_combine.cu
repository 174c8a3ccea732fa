// Partial results put together: a thread has 16 bytes of a row (token, head) of each slot, some slots at a time.
#include "kernels/cuda/check.h"
#include "kernels/cuda/nsa_heads_combine.cuh"

namespace hadal::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kAtOnce = 8;  // slots

// What a token has read.
struct TokenSlots {
  const std::int32_t* list;
  int count, key_tiles, select_block, visible, last_block;

  __device__ TokenSlots(const SelectedInputs<bf16>& in, int key_tiles_, int head, std::int64_t token)
      : list(in.blocks + (token * in.sizes.groups + head / in.sizes.heads_per_group()) * in.sizes.chosen),
        count(in.sizes.chosen * key_tiles_),
        key_tiles(key_tiles_),
        select_block(in.sizes.select_block) {
    const std::int64_t seen = in.sizes.query_start + token % in.sizes.tokens + 1;
    visible = static_cast<int>(seen < in.sizes.keys ? seen : in.sizes.keys);
    last_block = (visible - 1) / select_block;
  }
  /// Whether there is a partial result of slot and key tile `index`.
  __device__ bool has(int index) const {
    const int slot = key_tiles == 1 ? index : index / key_tiles;
    const int block = index < count ? list[slot] : -1;
    return block >= 0 && block <= last_block && block * select_block + (index - slot * key_tiles) * kHeadTile < visible;
  }
};

// grid (pieces of 16 bytes of all tokens, heads). kWeighted: the rows count as much as their sums do.
template <int kWidth, bool kWeighted>
__global__ void __launch_bounds__(kThreads) combine_kernel(SelectedInputs<bf16> in, HeadPartials partials, HeadRows<bf16> to, float* lse) {
  constexpr int kPieces = kWidth / 8;
  const SelectedSizes& sizes = in.sizes;
  const std::int64_t index = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x, token = index / kPieces;
  if (token >= sizes.batch * sizes.tokens) return;
  const int piece = static_cast<int>(index % kPieces), head = partials.first_head + static_cast<int>(blockIdx.y);
  const TokenSlots slots(in, partials.key_tiles, head, token);
  const std::int64_t first = partials.row(sizes, head, token, 0);
  const bf16* const rows = partials.rows + first * kWidth + piece * 8;
  const float* const row_lse = partials.lse + first;
  float base = 0;
  if constexpr (kWeighted) {
    float largest = -INFINITY;
    for (int i = 0; i < slots.count; ++i) {
      if (slots.has(i)) largest = fmaxf(largest, row_lse[i]);
    }
    base = largest == -INFINITY ? 0.0f : largest;
  }
  float sum[8] = {}, total = 0;
  for (int at = 0; at < slots.count; at += kAtOnce) {
    uint4 values[kAtOnce];
    float weights[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const bool has = slots.has(at + i);
      values[i] = has ? __ldcs(reinterpret_cast<const uint4*>(rows + static_cast<std::int64_t>(at + i) * kWidth)) : make_uint4(0, 0, 0, 0);
      weights[i] = has ? kWeighted ? exp2f(row_lse[at + i] - base) : 1.0f : 0.0f;
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      total += weights[i];
      const std::uint32_t words[4] = {values[i].x, values[i].y, values[i].z, values[i].w};
#pragma unroll
      for (int word = 0; word < 4; ++word) {
        const float2 both = __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&words[word]));
        sum[2 * word] = fmaf(both.x, weights[i], sum[2 * word]);
        sum[2 * word + 1] = fmaf(both.y, weights[i], sum[2 * word + 1]);
      }
    }
  }
  float factor = 1.0f;
  if constexpr (kWeighted) {
    factor = total == 0.0f ? 0.0f : 1.0f / total;
    if (piece == 0) lse[token * sizes.heads + head] = total == 0.0f ? -INFINITY : base * kLn2 + logf(total);
  }
  bf16* const row = to.at(token, head);
#pragma unroll
  for (int word = 0; word < 4; ++word) {
    *reinterpret_cast<std::uint32_t*>(row + partial_column(piece, word)) = pack(sum[2 * word] * factor, sum[2 * word + 1] * factor);
  }
}

template <int kWidth, bool kWeighted>
void start(Stream& stream, const SelectedInputs<bf16>& in, const HeadPartials& partials, HeadRows<bf16> to, float* lse) {
  const std::int64_t pieces = in.sizes.batch * in.sizes.tokens * (kWidth / 8);
  const dim3 grid(static_cast<unsigned>((pieces + kThreads - 1) / kThreads), static_cast<unsigned>(partials.heads));
  combine_kernel<kWidth, kWeighted><<<grid, kThreads, 0, native(stream)>>>(in, partials, to, lse);
  check_launch("nsa: partial results of heads");
}

}  // namespace

PartialRoom::PartialRoom(Stream& stream, const SelectedSizes& sizes, int width, bool with_lse) : heads_(sizes.heads) {
  const int key_tiles = key_tiles_of(sizes);
  const auto [heads, rows] = head_turns(shape_of(sizes), width, with_lse);
  rows_ = Tensor::empty({heads, rows, width}, DType::kBf16, stream.device());
  if (with_lse) lse_ = Tensor::empty({heads, rows}, DType::kF32, stream.device());
  first_ = {static_cast<bf16*>(rows_.view().data), with_lse ? lse_.as<float>() : nullptr, rows, 0, static_cast<int>(heads), key_tiles};
}

void combine_outputs(Stream& stream, const SelectedInputs<bf16>& in, const HeadPartials& partials, int width, HeadRows<bf16> o, float* lse) {
  width == 64 ? start<64, true>(stream, in, partials, o, lse) : start<128, true>(stream, in, partials, o, lse);
}

void combine_sums(Stream& stream, const SelectedInputs<bf16>& in, const HeadPartials& partials, int width, HeadRows<bf16> sum) {
  if (width == 192) {
    start<192, false>(stream, in, partials, sum, nullptr);
  } else {
    width == 64 ? start<64, false>(stream, in, partials, sum, nullptr) : start<128, false>(stream, in, partials, sum, nullptr);
  }
}

}  // namespace hadal::kernels::cuda
