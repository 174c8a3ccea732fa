// One row of logits: its cross-entropy, its greatest entry, and its gradient in place.
#pragma once

#include <cstdint>

namespace hadal::kernels::simd {

template <class T>
struct CrossEntropyRow {
  T nll = 0;
  std::int64_t prediction = 0;  ///< the lowest index of the greatest logit; 0 when not asked for
};

/// A row turned into the terms of its softmax, exp(logit - top).
template <class T>
struct SoftmaxTerms {
  T top = 0;
  T sum = 0;
  std::int64_t prediction = 0;  ///< the lowest index of the greatest logit
};

/// Sums run over fixed lanes and then the lanes in order.
template <class T>
struct CrossEntropyOps {
  /// logits [n], 0 <= target < n. `predict` asks for the prediction. With gradient, logits become weight * (softmax -
  /// onehot(target)).
  CrossEntropyRow<T> (*row)(std::int64_t n, T* logits, std::int64_t target, bool predict, bool gradient, T weight);
  /// logits [n], overwritten with the terms.
  SoftmaxTerms<T> (*terms)(std::int64_t n, T* logits);
};

template <class T>
const CrossEntropyOps<T>& cross_entropy_ops();

}  // namespace hadal::kernels::simd
