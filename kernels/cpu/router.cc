#include "kernels/router.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/parallel_for.h"
#include "kernels/dispatch.h"

namespace hadal::kernels {
namespace {

constexpr std::int64_t kTokenGrain = 64;

/// Scratch of one token, sized once per chunk.
template <class T>
struct Choice {
  std::vector<T> value;         // [E]
  std::vector<T> group;         // [Gn]
  std::vector<char> group_kept; // [Gn]
};

template <class T>
void score_row(RouterOptions::Score score, std::int64_t num_experts, const T* logits, T* s) {
  if (score == RouterOptions::Score::kSigmoid) {
    for (std::int64_t e = 0; e < num_experts; ++e) s[e] = T{1} / (T{1} + std::exp(-logits[e]));
    return;
  }
  const T top = *std::max_element(logits, logits + num_experts);
  T sum = 0;
  for (std::int64_t e = 0; e < num_experts; ++e) sum += s[e] = std::exp(logits[e] - top);
  for (std::int64_t e = 0; e < num_experts; ++e) s[e] /= sum;
}

/// Index of the first largest element; -1 when all are -inf.
template <class T>
std::int64_t first_largest(const T* values, std::int64_t count) {
  std::int64_t best = -1;
  T best_value = -std::numeric_limits<T>::infinity();
  for (std::int64_t i = 0; i < count; ++i) {
    if (values[i] > best_value) {
      best_value = values[i];
      best = i;
    }
  }
  return best;
}

template <class T>
T group_score(RouterOptions::GroupScore kind, const T* values, std::int64_t size) {
  T first = -std::numeric_limits<T>::infinity(), second = first;
  for (std::int64_t i = 0; i < size; ++i) {
    if (values[i] > first) {
      second = first;
      first = values[i];
    } else if (values[i] > second) {
      second = values[i];
    }
  }
  return kind == RouterOptions::GroupScore::kMax || size < 2 ? first : first + second;
}

/// Masks every group but the best with -inf; ties to the lower group.
template <class T>
void keep_best_groups(const RouterOptions& o, std::int64_t num_experts, Choice<T>& c) {
  if (o.topk_groups == o.num_groups) return;
  const std::int64_t size = num_experts / o.num_groups;
  for (std::int64_t g = 0; g < o.num_groups; ++g) c.group[g] = group_score(o.group_score, c.value.data() + g * size, size);
  std::fill(c.group_kept.begin(), c.group_kept.end(), 0);
  for (std::int64_t n = 0; n < o.topk_groups; ++n) {
    std::int64_t g = first_largest(c.group.data(), o.num_groups);
    if (g < 0) g = std::find(c.group_kept.begin(), c.group_kept.end(), 0) - c.group_kept.begin();
    c.group_kept[g] = 1;
    c.group[g] = -std::numeric_limits<T>::infinity();
  }
  for (std::int64_t g = 0; g < o.num_groups; ++g) {
    if (c.group_kept[g]) continue;
    std::fill(c.value.begin() + g * size, c.value.begin() + (g + 1) * size, -std::numeric_limits<T>::infinity());
  }
}

/// Scores that are no numbers give way to numbers, then the lowest free expert is taken: the weights carry the NaN on to the
/// loss, where the step is judged.
template <class T>
void choose(std::int64_t top_k, std::int64_t num_experts, Choice<T>& c, std::int32_t* experts) {
  for (std::int64_t k = 0; k < top_k; ++k) {
    std::int64_t e = first_largest(c.value.data(), num_experts);
    if (e < 0) {
      e = 0;
      while (std::find(experts, experts + k, e) != experts + k) ++e;
    }
    experts[k] = static_cast<std::int32_t>(e);
    c.value[e] = -std::numeric_limits<T>::infinity();
  }
}

void router_forward(Stream&, const RouterForward& args) {
  visit_float(args.logits.dtype, [&]<class T>() {
    const RouterOptions& o = args.options;
    const std::int64_t num_experts = args.logits.shape[1];
    const T* logits = args.logits.as<T>();
    const float* bias = args.bias.empty() ? nullptr : args.bias.as<float>();
    T* scores = args.scores.as<T>();
    const std::int64_t* token = args.token.empty() ? nullptr : args.token.as<std::int64_t>();
    std::int32_t* experts = args.experts.as<std::int32_t>();
    T* weights = args.weights.as<T>();
    parallel_ranges(args.logits.shape[0], kTokenGrain, [&](std::int64_t begin, std::int64_t end) {
      Choice<T> choice{std::vector<T>(num_experts), std::vector<T>(o.num_groups), std::vector<char>(o.num_groups)};
      for (std::int64_t t = begin; t < end; ++t) {
        T* s = scores + t * num_experts;
        score_row(o.score, num_experts, logits + t * num_experts, s);
        std::int32_t* chosen = experts + t * o.top_k;
        if (o.forced) {
          const std::int64_t first = (token == nullptr ? t : token[t]) * o.top_k;
          for (std::int64_t k = 0; k < o.top_k; ++k) chosen[k] = static_cast<std::int32_t>((first + k) % num_experts);
        } else {
          for (std::int64_t e = 0; e < num_experts; ++e) choice.value[e] = bias == nullptr ? s[e] : s[e] + static_cast<T>(bias[e]);
          keep_best_groups(o, num_experts, choice);
          choose(o.top_k, num_experts, choice, chosen);
        }
        T sum = 0;
        for (std::int64_t k = 0; k < o.top_k; ++k) sum += s[chosen[k]];
        const T factor = static_cast<T>(o.scaling) / (o.normalize ? sum + static_cast<T>(1e-20) : T{1});
        for (std::int64_t k = 0; k < o.top_k; ++k) weights[t * o.top_k + k] = s[chosen[k]] * factor;
      }
    });
  });
}

void router_backward(Stream&, const RouterBackward& args) {
  visit_float(args.scores.dtype, [&]<class T>() {
    const RouterOptions& o = args.options;
    const std::int64_t num_experts = args.scores.shape[1];
    const T* scores = args.scores.as<T>();
    const std::int32_t* experts = args.experts.as<std::int32_t>();
    const T* d_weights = args.d_weights.as<T>();
    const T* d_scores = args.d_scores.empty() ? nullptr : args.d_scores.as<T>();
    T* d_logits = args.d_logits.as<T>();
    parallel_ranges(args.scores.shape[0], kTokenGrain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t t = begin; t < end; ++t) {
        const T* s = scores + t * num_experts;
        const std::int32_t* chosen = experts + t * o.top_k;
        const T* dg = d_weights + t * o.top_k;
        T* d = d_logits + t * num_experts;  // holds ds until the score function's own backward
        for (std::int64_t e = 0; e < num_experts; ++e) d[e] = d_scores == nullptr ? T{0} : d_scores[t * num_experts + e];
        T sum = 0, pull = 0;
        for (std::int64_t k = 0; k < o.top_k; ++k) sum += s[chosen[k]];
        sum += static_cast<T>(1e-20);
        if (o.normalize) {
          for (std::int64_t k = 0; k < o.top_k; ++k) pull += dg[k] * s[chosen[k]] / sum;
        }
        const T factor = static_cast<T>(o.scaling) / (o.normalize ? sum : T{1});
        for (std::int64_t k = 0; k < o.top_k; ++k) d[chosen[k]] += factor * (dg[k] - pull);
        if (o.score == RouterOptions::Score::kSigmoid) {
          for (std::int64_t e = 0; e < num_experts; ++e) d[e] *= s[e] * (T{1} - s[e]);
        } else {
          T mean = 0;
          for (std::int64_t e = 0; e < num_experts; ++e) mean += d[e] * s[e];
          for (std::int64_t e = 0; e < num_experts; ++e) d[e] = s[e] * (d[e] - mean);
        }
      }
    });
  });
}

void dispatch_plan(Stream&, const DispatchPlan& args) {
  const std::int64_t pairs = args.experts.numel();
  const std::int64_t top_k = args.experts.shape[1];
  const std::int32_t* experts = args.experts.as<std::int32_t>();
  std::int64_t* offsets = args.offsets.as<std::int64_t>();
  std::int32_t* row_token = args.row_token.as<std::int32_t>();
  std::int32_t* row_pair = args.row_pair.as<std::int32_t>();
  std::int32_t* pair_row = args.pair_row.as<std::int32_t>();
  std::fill(offsets, offsets + args.num_experts + 1, 0);
  for (std::int64_t p = 0; p < pairs; ++p) ++offsets[experts[p] + 1];
  for (std::int64_t e = 0; e < args.num_experts; ++e) offsets[e + 1] += offsets[e];
  std::vector<std::int64_t> next(offsets, offsets + args.num_experts);
  for (std::int64_t p = 0; p < pairs; ++p) {
    const std::int64_t row = next[static_cast<std::size_t>(experts[p])]++;
    row_token[row] = static_cast<std::int32_t>(p / top_k);
    row_pair[row] = static_cast<std::int32_t>(p);
    pair_row[p] = static_cast<std::int32_t>(row);
  }
}

const RegisterCpu<RouterForward> registered_forward{router_forward};
const RegisterCpu<RouterBackward> registered_backward{router_backward};
const RegisterCpu<DispatchPlan> registered_plan{dispatch_plan};

}  // namespace
}  // namespace hadal::kernels
