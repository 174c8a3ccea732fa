// Cross-entropy over a vocabulary whose columns lie on several ranks, in three ops with one small exchange between them
// (spec/parallelism.md 7). Rank r holds columns [first_r, first_r + V_r) of a chunk of logits:
//
//   1  vocab_softmax_terms     logits -> exp(logit - top_r) in place; per row top_r, sum_r = sum exp(logit - top_r), the target's
//                              logit where the target is one of these columns, and the first column of the greatest logit
//      ... the rows' statistics of all ranks are gathered ...
//   2  vocab_cross_entropy     top = max_r top_r;  S = sum_r sum_r exp(top_r - top), ranks in order;  nll = log S + top - target_logit
//                              factor = scale weight exp(top_mine - top) / S;  prediction: the lowest column of the greatest logit
//   3  vocab_softmax_gradient  terms * factor - scale weight onehot(target) in place: the gradient of the logits
//
// Shape legend: R rows, V' columns held here, n ranks. logits and terms share one dtype; statistics, factor, loss_weight and
// token_loss have its accumulation_dtype (f32 for bf16; the sum is then that of the terms before they are rounded). Ignored rows (target < 0
// or weight 0) give nll 0 and a zero gradient.
// Their sum is loss_sum.h's, of every chunk at once.
#pragma once

#include "core/tensor.h"
#include "kernels/op.h"

namespace hadal::kernels {

/// Columns of the statistics of a row.
enum VocabStatistic : int { kVocabTop, kVocabSum, kVocabTargetLogit, kVocabPrediction, kNumVocabStatistics };

struct VocabSoftmaxTerms {
  static constexpr const char* kName = "vocab_softmax_terms";
  View logits;                    ///< [R, V'], overwritten with the terms
  ConstView targets;              ///< I32 [R], of the whole vocabulary; -1 = ignored
  std::int64_t first_column = 0;  ///< of the columns here
  View statistics;                ///< [R, kNumVocabStatistics]; target_logit 0 where the target is elsewhere
};

struct VocabCrossEntropy {
  static constexpr const char* kName = "vocab_cross_entropy";
  ConstView statistics;  ///< [n, R, kNumVocabStatistics] of all ranks; predictions count in the whole vocabulary
  std::int64_t rank = 0; ///< mine
  ConstView targets;     ///< I32 [R]
  ConstView loss_weight; ///< [R]
  double scale = 1;
  View token_loss;       ///< [R]
  View factor;           ///< [R]
  View prediction{};     ///< I32 [R] or empty
};

struct VocabSoftmaxGradient {
  static constexpr const char* kName = "vocab_softmax_gradient";
  View terms;            ///< [R, V'], overwritten with d_logits
  ConstView factor;      ///< [R]
  ConstView targets;     ///< I32 [R]
  ConstView loss_weight; ///< [R]
  double scale = 1;
  std::int64_t first_column = 0;
};

void run(Stream& stream, const VocabSoftmaxTerms& args);
void run(Stream& stream, const VocabCrossEntropy& args);
void run(Stream& stream, const VocabSoftmaxGradient& args);

}  // namespace hadal::kernels
