#include "kernels/cpu/simd/cross_entropy.h"

#include <cmath>

#include "kernels/cpu/simd/exp.h"
#include "kernels/cpu/simd/tables.h"

HADAL_SIMD_TABLE(CrossEntropyOps, cross_entropy_ops)

namespace hadal::kernels::simd::HADAL_SIMD {
namespace {

template <class T>
constexpr int kLanes = 128 / static_cast<int>(sizeof(T));

template <class T>
T greatest(std::int64_t n, const T* x) {
  T lanes[kLanes<T>];
  for (int lane = 0; lane < kLanes<T>; ++lane) lanes[lane] = x[0];
  std::int64_t i = 0;
  for (; i + kLanes<T> <= n; i += kLanes<T>) {
    for (int lane = 0; lane < kLanes<T>; ++lane) lanes[lane] = x[i + lane] > lanes[lane] ? x[i + lane] : lanes[lane];
  }
  T result = lanes[0];
  for (int lane = 1; lane < kLanes<T>; ++lane) result = lanes[lane] > result ? lanes[lane] : result;
  for (; i < n; ++i) result = x[i] > result ? x[i] : result;
  return result;
}

/// sum exp(x - shift); with store, x becomes the terms.
template <class T, bool kStore>
T sum_exp(std::int64_t n, T* x, T shift) {
  T lanes[kLanes<T>] = {};
  std::int64_t i = 0;
  for (; i + kLanes<T> <= n; i += kLanes<T>) {
    for (int lane = 0; lane < kLanes<T>; ++lane) {
      const T term = exp_approx(x[i + lane] - shift);
      if constexpr (kStore) x[i + lane] = term;
      lanes[lane] += term;
    }
  }
  T sum = 0;
  for (int lane = 0; lane < kLanes<T>; ++lane) sum += lanes[lane];
  for (; i < n; ++i) {
    const T term = exp_approx(x[i] - shift);
    if constexpr (kStore) x[i] = term;
    sum += term;
  }
  return sum;
}

template <class T>
CrossEntropyRow<T> row(std::int64_t n, T* logits, std::int64_t target, bool gradient, T weight) {
  CrossEntropyRow<T> result;
  const T top = greatest(n, logits);
  while (result.prediction < n - 1 && !(logits[result.prediction] == top)) ++result.prediction;
  const T target_logit = logits[target];
  const T sum = gradient ? sum_exp<T, true>(n, logits, top) : sum_exp<T, false>(n, logits, top);
  result.nll = static_cast<T>(::log(static_cast<double>(sum))) + (top - target_logit);
  if (gradient) {
    const T factor = weight / sum;
    for (std::int64_t i = 0; i < n; ++i) logits[i] *= factor;
    logits[target] -= weight;
  }
  return result;
}

}  // namespace

template <class T>
constexpr CrossEntropyOps<T> kTable{row<T>};

const CrossEntropyOps<float>& cross_entropy_ops_f32() { return kTable<float>; }
const CrossEntropyOps<double>& cross_entropy_ops_f64() { return kTable<double>; }

}  // namespace hadal::kernels::simd::HADAL_SIMD
