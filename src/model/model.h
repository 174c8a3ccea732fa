// A whole language model on one rank: embedding, blocks, final norm, head, MTP modules (spec/model.md).
// Shape legend: B sequences of S tokens, T = B*S, d hidden size, V vocabulary, D MTP depth.
#pragma once

#include <memory>
#include <vector>

#include "model/mtp_module.h"

namespace hadal::model {

/// What is predicted from one set of rows: targets and their weights in the loss.
struct Prediction {
  Tensor inputs;   ///< I32 [T]: MTP depth k: t_{i+k}, -1 where there is none; unused by the main loss
  Tensor targets;  ///< I32 [T]
  Tensor weights;  ///< [T], compute dtype: 1 / valid tokens of the global batch, 0 where masked
};

/// One micro-batch as the model reads it.
struct MicroBatch {
  std::int64_t batch = 1;
  std::int64_t seq = 1;
  double sequence_scale = 1.0;  ///< 1 / sequences of the global batch (balance loss)
  double mtp_weight = 0.0;      ///< lambda
  Tensor tokens;                ///< I32 [T]
  Prediction main;
  std::vector<Prediction> mtp;  ///< depth 1 .. D
};

/// Weighted sums over the micro-batch; over all micro-batches of a step they add up to the batch's means.
struct Losses {
  double main = 0;
  std::vector<double> mtp;  ///< per depth, before lambda / D
};

class Model {
 public:
  explicit Model(const ModelOptions& options);

  const ModelOptions& options() const { return options_; }
  /// Every parameter and buffer, in a fixed order.
  nn::ParameterList parameters();
  /// MoE layers, MTP's included, in order.
  std::vector<nn::MoeLayer*> moe_layers();
  void initialize(std::uint64_t seed);
  /// nn::Attention::hold_selection of every layer, MTP's included: gradient checks need frozen block choices.
  void hold_selection(bool hold);

  /// Forward and backward; gradients accumulate into the parameters.
  Losses forward_backward(Stream& stream, const MicroBatch& micro_batch);

  /// Forward alone.
  struct Evaluation {
    Losses losses;
    Tensor token_loss;         ///< [T]: main -log p of each target, natural log
    std::int64_t drafts = 0;   ///< MTP depth 1: positions whose draft can be checked against the main model's own choice
    std::int64_t accepted = 0; ///< ... and agree with it
  };
  Evaluation evaluate(Stream& stream, const MicroBatch& micro_batch);

  /// Logits [T, V] of whole sequences, tokens I32 [B, S]; mtp[k-1] has rows for every position, of which the last k of a sequence mean nothing.
  struct Logits {
    Tensor main;
    std::vector<Tensor> mtp;
  };
  Logits logits(Stream& stream, ConstView tokens);

  // Incremental decoding of one sequence (infer/).
  std::vector<std::unique_ptr<nn::AttentionCache>> make_caches(std::int64_t max_tokens);
  std::unique_ptr<nn::AttentionCache> make_mtp_cache(std::int64_t max_tokens);
  /// The next n tokens I32 [n] -> hidden states after the final norm [n, d].
  Tensor decode(Stream& stream, ConstView tokens, std::vector<std::unique_ptr<nn::AttentionCache>>& caches);
  /// MTP depth 1 at n positions: next_tokens I32 [n] = t_{i+1}, hidden [n, d] of `decode` -> [n, d], input of `head`.
  Tensor decode_mtp(Stream& stream, ConstView next_tokens, ConstView hidden, nn::AttentionCache& cache);
  /// hidden [n, d] -> logits [n, V].
  Tensor head(Stream& stream, ConstView hidden);

 private:
  struct Trunk;

  Tensor embed(Stream& stream, ConstView tokens);
  Tensor run_blocks(nn::Context& ctx, Tensor h, Trunk* trunk);
  nn::Context mtp_context(const nn::Context& ctx, std::size_t module) const;

  ModelOptions options_;
  std::shared_ptr<const nn::RopeTable> rope_;
  nn::Parameter embedding_;  ///< [V, d]
  std::vector<std::unique_ptr<Block>> blocks_;
  nn::RmsNorm final_norm_;
  nn::Parameter head_;       ///< [V, d]
  std::vector<std::unique_ptr<MtpModule>> mtp_;
};

}  // namespace hadal::model
