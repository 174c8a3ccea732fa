// Routing of tokens to experts (spec/model.md 5 and 6).
//
// Shape legend: T rows (tokens), E experts in Gn equal groups, K experts per token (distinct), R = T*K rows sorted by expert,
// B sequences, D devices. On CUDA, E is at most 512 and K at most 32. Float views are of one dtype, f32 or f64, beside a bf16 model too:
// logits, scores, weights and their gradients are never rounded below f32.
#pragma once

#include "kernels/op.h"
#include "core/tensor.h"

namespace hadal::kernels {

struct RouterOptions {
  enum class Score { kSigmoid, kSoftmax } score = Score::kSigmoid;
  /// How groups are ranked: V3 sums the two largest biased scores, V2 takes the largest.
  enum class GroupScore { kTopTwoSum, kMax } group_score = GroupScore::kTopTwoSum;
  std::int64_t top_k = 1;
  std::int64_t num_groups = 1;
  std::int64_t topk_groups = 1;
  bool normalize = true;   ///< weights divided by their sum + 1e-20
  double scaling = 1.0;    ///< routed_scaling_factor
  bool forced = false;     ///< experts (token*K + slot) mod E whatever the scores: the perfectly even load of a bench
};

/// s = sigmoid(logits) or softmax(logits); choice by s + bias within the best groups (others -inf), ties to the lower index;
/// weights from s. Slots of a token are in order of descending choice value. NaN logits come out as NaN weights of some experts.
struct RouterForward {
  static constexpr const char* kName = "router_forward";
  RouterOptions options;
  ConstView logits;  ///< [T, E]
  ConstView bias;    ///< F32 [E] or empty
  ConstView token;   ///< I64 [T]: number of each row's token in the batch, where choices are forced; empty: 0, 1, ...
  View scores;       ///< [T, E]: s
  View experts;      ///< I32 [T, K]
  View weights;      ///< [T, K]
};

/// With dg the gradient of the weights: sigmoid, normalised: ds_i = (scaling/S)(dg_i - sum dg_j w_j), dlogit = ds s (1 - s); the
/// others accordingly. d_scores is a gradient on s from elsewhere (balance loss), or empty.
struct RouterBackward {
  static constexpr const char* kName = "router_backward";
  RouterOptions options;
  ConstView scores;
  ConstView experts;
  ConstView d_weights;  ///< [T, K]
  ConstView d_scores;   ///< [T, E] or empty
  View d_logits;        ///< [T, E], overwritten
};

/// Stable counting sort of the (token, slot) pairs by expert: where each row comes from and each pair went.
struct DispatchPlan {
  static constexpr const char* kName = "dispatch_plan";
  std::int64_t num_experts = 0;
  ConstView experts;  ///< I32 [T, K]
  View offsets;       ///< I64 [E + 1]: rows of expert e are [offsets[e], offsets[e+1])
  View row_token;     ///< I32 [R]
  View row_pair;      ///< I32 [R]: t*K + slot
  View pair_row;      ///< I32 [T, K]
};

/// Which of the T rows here belong to which sequence: they are the rows [row_begin, row_begin + T) of B sequences of `seq` rows, the
/// first `valid_seq` of each sequence stand for tokens that count.
struct SequenceRows {
  std::int64_t batch = 1;
  std::int64_t seq = 1;
  std::int64_t valid_seq = 1;
  std::int64_t row_begin = 0;
};

/// Integer loads of the rows here: over the whole batch (the balancer's), and per sequence for BalanceLoss. Where the rows of a
/// sequence lie on several ranks, the counts per sequence are summed over them in between.
struct BalanceCounts {
  static constexpr const char* kName = "balance_counts";
  RouterOptions options;
  SequenceRows rows;
  ConstView scores;   ///< [T, E]
  ConstView experts;  ///< I32 [T, K]
  View counts;        ///< I64 [E], accumulated: (token, slot) pairs per expert
  View chosen;        ///< I64 [B, E], overwritten: the same of each sequence
  View raw_top_k;     ///< I64 [B, E], overwritten, or empty: pairs by the K largest scores, no bias, no group limit (spec/model.md 6.2)
  View sent;          ///< I64 [B, D], overwritten, or empty: tokens with an expert on each of D equal shares of the experts
};

/// Auxiliary balance losses of B sequences of `tokens` counted tokens each.
///   P_i = mean_t s_ti / sum_j s_tj;  f_i = E/(K tokens) * #{t: i chosen};  per sequence, L = sum_i c_i P_i with
///   c_i = sequence_alpha f~_i + expert_alpha f_i + device_alpha f'_g(i) + communication_alpha f''_g(i)
/// f~ counts the top-K of the raw scores (V3), the others actual choices (V2). c is constant in backward:
///   d_s_ti = scale / (tokens S_t) (c_i - sum_j c_j s_tj / S_t)
/// The loss is summed over the rows here and multiplied by scale (1 / sequences of the global batch): shares of ranks add up.
struct BalanceLoss {
  static constexpr const char* kName = "balance_loss";
  RouterOptions options;
  SequenceRows rows;
  std::int64_t tokens = 0;  ///< of a whole sequence, wherever they lie
  double sequence_alpha = 0, expert_alpha = 0, device_alpha = 0, communication_alpha = 0;
  double scale = 1.0;
  ConstView scores;     ///< [T, E]
  ConstView chosen;     ///< I64 [B, E], of whole sequences
  ConstView raw_top_k;  ///< I64 [B, E]; read with sequence_alpha
  ConstView sent;       ///< I64 [B, D]; read with device_alpha or communication_alpha
  View loss;            ///< F64 [1], accumulated
  View d_scores;        ///< [T, E], overwritten
};

void run(Stream& stream, const RouterForward& args);
void run(Stream& stream, const RouterBackward& args);
void run(Stream& stream, const DispatchPlan& args);
void run(Stream& stream, const BalanceCounts& args);
void run(Stream& stream, const BalanceLoss& args);

}  // namespace hadal::kernels
