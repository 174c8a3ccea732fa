#include "kernels/cpu/simd/cross_entropy.h"

#include <cmath>

#include "kernels/cpu/simd/exp.h"
#include "kernels/cpu/simd/tables.h"
#include "kernels/cpu/simd/vector.h"

HADAL_SIMD_TABLE(CrossEntropyOps, cross_entropy_ops)

namespace hadal::kernels::simd::HADAL_SIMD {
namespace {

// Terms are made in pieces that stay in the first-level cache; sums run over four vectors of lanes and then the lanes in order.
constexpr std::int64_t kPiece = 512;
constexpr int kSums = 4;

template <class T>
constexpr std::int64_t kStep = kSums* kLanesOf<T>;

template <class T>
T greatest(std::int64_t n, const T* x) {
  Vector<T> tops[kSums];
  HADAL_UNROLL
  for (int s = 0; s < kSums; ++s) tops[s] = broadcast(x[0]);
  std::int64_t i = 0;
  for (; i + kStep<T> <= n; i += kStep<T>) {
    HADAL_UNROLL
    for (int s = 0; s < kSums; ++s) {
      const Vector<T> value = load(x + i + s * kLanesOf<T>);
      tops[s] = value > tops[s] ? value : tops[s];
    }
  }
  T result = x[0];
  for (int s = 0; s < kSums; ++s) {
    for (int lane = 0; lane < kLanesOf<T>; ++lane) result = tops[s][lane] > result ? tops[s][lane] : result;
  }
  for (; i < n; ++i) result = x[i] > result ? x[i] : result;
  return result;
}

template <class T>
std::int64_t first_equal(std::int64_t n, const T* x, T value) {
  constexpr std::int64_t kBlock = 256;
  std::int64_t i = 0;
  for (; i + kBlock <= n; i += kBlock) {
    int found = 0;
    for (std::int64_t j = 0; j < kBlock; ++j) found |= x[i + j] == value ? 1 : 0;
    if (found != 0) break;
  }
  while (i < n - 1 && !(x[i] == value)) ++i;
  return i;
}

/// sum exp(x - shift); with kKeep, x becomes the terms. (One pointer a loop: a compiler must not fear that two overlap.)
template <class T, bool kKeep>
T sum_exp(std::int64_t n, T* x, T shift) {
  alignas(64) T piece[kPiece];
  Vector<T> sums[kSums] = {};
  T rest = 0;
  for (std::int64_t begin = 0; begin < n; begin += kPiece) {
    const std::int64_t count = n - begin < kPiece ? n - begin : kPiece;
    T* terms = x + begin;
    if constexpr (kKeep) {
      for (std::int64_t i = 0; i < count; ++i) terms[i] = exp_approx(terms[i] - shift);
    } else {
      for (std::int64_t i = 0; i < count; ++i) piece[i] = exp_approx(terms[i] - shift);
      terms = piece;
    }
    std::int64_t i = 0;
    for (; i + kStep<T> <= count; i += kStep<T>) {
      HADAL_UNROLL
      for (int s = 0; s < kSums; ++s) sums[s] += load(terms + i + s * kLanesOf<T>);
    }
    for (; i < count; ++i) rest += terms[i];
  }
  T sum = 0;
  for (int s = 0; s < kSums; ++s) {
    for (int lane = 0; lane < kLanesOf<T>; ++lane) sum += sums[s][lane];
  }
  return sum + rest;
}

template <class T>
CrossEntropyRow<T> row(std::int64_t n, T* logits, std::int64_t target, bool predict, bool gradient, T weight) {
  CrossEntropyRow<T> result;
  const T top = greatest(n, logits);
  if (predict) result.prediction = first_equal(n, logits, top);
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

template <class T>
SoftmaxTerms<T> terms(std::int64_t n, T* logits) {
  SoftmaxTerms<T> result;
  result.top = greatest(n, logits);
  result.prediction = first_equal(n, logits, result.top);
  result.sum = sum_exp<T, true>(n, logits, result.top);
  return result;
}

}  // namespace

template <class T>
static constexpr CrossEntropyOps<T> kTable{row<T>, terms<T>};

const CrossEntropyOps<float>& cross_entropy_ops_f32() { return kTable<float>; }
const CrossEntropyOps<double>& cross_entropy_ops_f64() { return kTable<double>; }

}  // namespace hadal::kernels::simd::HADAL_SIMD
