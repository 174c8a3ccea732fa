// Routing on the device, one warp per token, scores in registers: see kernels/router.h. All float views are f32 and expf is the accurate
// one, so that choices are those of exact scores unless these are nearer than f32 can tell.
#include "kernels/router.h"

#include <algorithm>

#include "kernels/cuda/check.h"
#include "kernels/cuda/top_k.cuh"

namespace hadal::kernels::cuda {
namespace {

constexpr int kWarps = 8;  ///< of a block
constexpr float kLeastSum = 1e-20f;

/// RouterOptions and sizes, as the kernels read them.
struct Routing {
  std::int64_t tokens;
  int num_experts, top_k, num_groups, topk_groups, group_size;
  int lanes_per_group;  ///< a power of two: how many lanes look through one group
  bool sigmoid, top_two, normalize, forced;
  float scaling;
};

Routing routing_of(const RouterOptions& o, std::int64_t tokens, std::int64_t num_experts) {
  HADAL_CHECK(o.top_k <= kWarp, "top {} of the experts, of which the CUDA router takes up to {}", o.top_k, kWarp);
  Routing r{};
  r.tokens = tokens;
  r.num_experts = static_cast<int>(num_experts);
  r.top_k = static_cast<int>(o.top_k);
  r.num_groups = static_cast<int>(o.num_groups);
  r.topk_groups = static_cast<int>(o.topk_groups);
  r.group_size = r.num_experts / r.num_groups;
  r.lanes_per_group = 1;
  while (2 * r.lanes_per_group * r.num_groups <= kWarp) r.lanes_per_group *= 2;
  r.sigmoid = o.score == RouterOptions::Score::kSigmoid;
  r.top_two = o.group_score == RouterOptions::GroupScore::kTopTwoSum && r.group_size >= 2;
  r.normalize = o.normalize;
  r.forced = o.forced;
  r.scaling = static_cast<float>(o.scaling);
  return r;
}

unsigned blocks_for(const Stream& stream, std::int64_t tokens) {
  constexpr std::int64_t kBlocksPerProcessor = 8;
  return static_cast<unsigned>(std::min((tokens + kWarps - 1) / kWarps, num_multiprocessors(stream.device().index) * kBlocksPerProcessor));
}

/// logits -> scores, in place. Elements from num_experts on hold -inf before and nothing of use after.
template <int Parts>
__device__ void score_row(const Routing& r, float (&s)[Parts]) {
  if (r.sigmoid) {
#pragma unroll
    for (int i = 0; i < Parts; ++i) s[i] = __fdividef(1.0f, 1.0f + expf(-s[i]));  // within one unit in the last place
    return;
  }
  float top = s[0], sum = 0;
#pragma unroll
  for (int i = 1; i < Parts; ++i) top = fmaxf(top, s[i]);
  top = warp_max(top);
#pragma unroll
  for (int i = 0; i < Parts; ++i) {
    s[i] = static_cast<int>(threadIdx.x) % kWarp + i * kWarp < r.num_experts ? expf(s[i] - top) : 0.0f;
    sum += s[i];
  }
  const float inverse = 1.0f / warp_sum(sum);
#pragma unroll
  for (int i = 0; i < Parts; ++i) s[i] *= inverse;
}

/// Score of group `g`, from the warp's `values` (no NaN); the lanes_per_group lanes that share it call together and all get it.
__device__ float group_score(const Routing& r, const float* values, int g) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  float first = -INFINITY, second = -INFINITY;
  if (g < r.num_groups) {
    for (int j = lane % r.lanes_per_group; j < r.group_size; j += r.lanes_per_group) {
      const float v = values[g * r.group_size + j];
      second = fmaxf(second, fminf(first, v));
      first = fmaxf(first, v);
    }
  }
  for (int step = r.lanes_per_group / 2; step > 0; step /= 2) {
    const float other_first = __shfl_xor_sync(kAllLanes, first, step), other_second = __shfl_xor_sync(kAllLanes, second, step);
    second = fmaxf(fminf(first, other_first), fmaxf(second, other_second));
    first = fmaxf(first, other_first);
  }
  return r.top_two ? first + second : first;
}

/// Chooses the best groups, of which 32 * GroupParts hold all; bit g % 32 of kept[g / 32] says whether group g is one. `kept` and
/// `values`: shared memory of this warp.
template <int GroupParts>
__device__ void choose_groups(const Routing& r, const float* values, unsigned* kept) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  Choices<GroupParts> groups;
  groups.reset(r.num_groups);
  const unsigned all = groups.free;
#pragma unroll
  for (int i = 0; i < GroupParts; ++i) {
    groups.key[i] = 0;
    if (i * kWarp >= r.num_groups) continue;
    // Several lanes share a group only where one part holds them all; group g then moves to lane g.
    const float shared = group_score(r, values, i * kWarp + lane / r.lanes_per_group);
    const float score = __shfl_sync(kAllLanes, shared, lane * r.lanes_per_group % kWarp);
    if (i * kWarp + lane < r.num_groups) groups.key[i] = choice_key(score);
  }
  for (int n = 0; n < r.topk_groups; ++n) groups.take_largest();
#pragma unroll
  for (int i = 0; i < GroupParts; ++i) {
    const unsigned word = __ballot_sync(kAllLanes, ((all & ~groups.free) >> i & 1u) != 0);
    if (lane == 0) kept[i] = word;
  }
  __syncwarp();
}

/// Takes the experts outside the best groups out of the choice. `group`: that of each of this lane's experts.
template <int Parts>
__device__ void keep_best_groups(const Routing& r, const float* values, unsigned* kept, const int (&group)[Parts], Choices<Parts>& choices) {
  if (r.num_groups <= kWarp) {
    choose_groups<1>(r, values, kept);
  } else {
    choose_groups<Parts>(r, values, kept);
  }
#pragma unroll
  for (int i = 0; i < Parts; ++i) {
    if ((kept[group[i] / kWarp] >> group[i] % kWarp & 1u) == 0) choices.key[i] = 0;
  }
}

template <int Parts>
__global__ void __launch_bounds__(kWarps* kWarp, Parts > 8 ? 2 : 4)
    forward_kernel(Routing r, const float* logits, const float* bias, const std::int64_t* token, float* scores, int* experts, float* weights) {
  __shared__ float score_rows[kWarps][Parts * kWarp], value_rows[kWarps][Parts * kWarp];
  __shared__ unsigned kept_groups[kWarps][Parts];
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  float* const score_row_here = score_rows[warp];
  float* const values = value_rows[warp];
  const bool grouped = r.topk_groups < r.num_groups;
  float b[Parts];
  int group[Parts];
#pragma unroll
  for (int i = 0; i < Parts; ++i) {
    const int e = i * kWarp + lane;
    b[i] = bias != nullptr && e < r.num_experts ? bias[e] : 0.0f;
    group[i] = e < r.num_experts ? e / r.group_size : 0;
  }
  for (std::int64_t t = static_cast<std::int64_t>(blockIdx.x) * kWarps + warp; t < r.tokens; t += static_cast<std::int64_t>(gridDim.x) * kWarps) {
    float s[Parts];
#pragma unroll
    for (int i = 0; i < Parts; ++i) {
      const int e = i * kWarp + lane;
      s[i] = e < r.num_experts ? logits[t * r.num_experts + e] : -INFINITY;
    }
    score_row(r, s);
#pragma unroll
    for (int i = 0; i < Parts; ++i) {
      const int e = i * kWarp + lane;
      if (e < r.num_experts) scores[t * r.num_experts + e] = s[i];
      score_row_here[e] = s[i];
    }
    int mine = 0;  // the expert of slot `lane`
    if (r.forced) {
      mine = static_cast<int>(((token == nullptr ? t : token[t]) * r.top_k + lane) % r.num_experts);
      __syncwarp();
    } else {
      Choices<Parts> choices;
      choices.reset(r.num_experts);
#pragma unroll
      for (int i = 0; i < Parts; ++i) {
        const int e = i * kWarp + lane;
        const float value = s[i] + b[i];
        choices.key[i] = e < r.num_experts ? choice_key(value) : 0;
        values[e] = value > -INFINITY ? value : -INFINITY;
      }
      __syncwarp();
      if (grouped) keep_best_groups(r, values, kept_groups[warp], group, choices);
      for (int k = 0; k < r.top_k; ++k) {
        const int e = choices.take_largest();
        if (lane == k) mine = e;
      }
    }
    const float chosen = lane < r.top_k ? score_row_here[mine] : 0.0f;
    const float factor = r.normalize ? r.scaling / (warp_sum(chosen) + kLeastSum) : r.scaling;
    if (lane < r.top_k) {
      experts[t * r.top_k + lane] = mine;
      weights[t * r.top_k + lane] = chosen * factor;
    }
    __syncwarp();  // the next token writes the rows in shared memory
  }
}

template <int Parts>
__global__ void __launch_bounds__(kWarps* kWarp)
    backward_kernel(Routing r, const float* scores, const int* experts, const float* d_weights, const float* d_scores, float* d_logits) {
  __shared__ float gradient_rows[kWarps][Parts * kWarp];
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  float* const row = gradient_rows[warp];
  for (std::int64_t t = static_cast<std::int64_t>(blockIdx.x) * kWarps + warp; t < r.tokens; t += static_cast<std::int64_t>(gridDim.x) * kWarps) {
    const std::int64_t begin = t * r.num_experts;
    float s[Parts];
#pragma unroll
    for (int i = 0; i < Parts; ++i) {
      const int e = i * kWarp + lane;
      const bool here = e < r.num_experts;
      s[i] = here ? scores[begin + e] : 0.0f;
      row[e] = here && d_scores != nullptr ? d_scores[begin + e] : 0.0f;
    }
    const bool has_slot = lane < r.top_k;
    const int mine = has_slot ? experts[t * r.top_k + lane] : 0;
    const float chosen = has_slot ? scores[begin + mine] : 0.0f, d_weight = has_slot ? d_weights[t * r.top_k + lane] : 0.0f;
    float factor = r.scaling, pull = 0;
    if (r.normalize) {
      const float sum = warp_sum(chosen) + kLeastSum;
      pull = warp_sum(d_weight * chosen / sum);
      factor = r.scaling / sum;
    }
    __syncwarp();
    if (has_slot) row[mine] += factor * (d_weight - pull);  // the experts of a token are distinct
    __syncwarp();
    float d[Parts];
    float mean = 0;
#pragma unroll
    for (int i = 0; i < Parts; ++i) {
      d[i] = row[i * kWarp + lane];
      mean += d[i] * s[i];
    }
    if (!r.sigmoid) mean = warp_sum(mean);
#pragma unroll
    for (int i = 0; i < Parts; ++i) {
      const int e = i * kWarp + lane;
      if (e < r.num_experts) d_logits[begin + e] = r.sigmoid ? d[i] * (s[i] * (1.0f - s[i])) : s[i] * (d[i] - mean);
    }
  }
}

void router_forward(Stream& stream, const RouterForward& args) {
  const std::int64_t tokens = args.logits.shape[0], num_experts = args.logits.shape[1];
  if (tokens == 0) return;
  const Routing r = routing_of(args.options, tokens, num_experts);
  visit_parts(num_experts, [&]<int Parts>() {
    forward_kernel<Parts><<<blocks_for(stream, tokens), kWarps * kWarp, 0, native(stream)>>>(
        r, args.logits.as<float>(), args.bias.empty() ? nullptr : args.bias.as<float>(), args.token.empty() ? nullptr : args.token.as<std::int64_t>(),
        args.scores.as<float>(), args.experts.as<std::int32_t>(), args.weights.as<float>());
  });
  check_launch(RouterForward::kName);
}

void router_backward(Stream& stream, const RouterBackward& args) {
  const std::int64_t tokens = args.scores.shape[0], num_experts = args.scores.shape[1];
  if (tokens == 0) return;
  const Routing r = routing_of(args.options, tokens, num_experts);
  visit_parts(num_experts, [&]<int Parts>() {
    backward_kernel<Parts><<<blocks_for(stream, tokens), kWarps * kWarp, 0, native(stream)>>>(
        r, args.scores.as<float>(), args.experts.as<std::int32_t>(), args.d_weights.as<float>(),
        args.d_scores.empty() ? nullptr : args.d_scores.as<float>(), args.d_logits.as<float>());
  });
  check_launch(RouterBackward::kName);
}

const RegisterCuda<RouterForward> registered_forward{router_forward};
const RegisterCuda<RouterBackward> registered_backward{router_backward};

}  // namespace
}  // namespace hadal::kernels::cuda
