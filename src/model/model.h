// A whole language model on one rank, for evaluation, logits and decoding: its one stage holds every piece (spec/model.md).
// Shape legend: B sequences of S tokens, T = B*S, d hidden size, V vocabulary, D MTP depth.
#pragma once

#include <memory>
#include <vector>

#include "model/stage.h"

namespace hadal::model {

/// How often MTP depth 1 drafts what the main model itself would say next (speculative decoding accepts those).
struct Agreement {
  std::int64_t drafts = 0;    ///< positions with a weight in depth 1's loss whose draft can be checked
  std::int64_t accepted = 0;
};
/// choice and draft I32 [B*S] as Stage::Outcome has them, of whole sequences; all on the host.
Agreement agreement(const MicroBatch& m, ConstView choice, ConstView draft);

class Model {
 public:
  explicit Model(const ModelOptions& options);

  const ModelOptions& options() const { return options_; }
  /// Every parameter and buffer, in a fixed order.
  nn::ParameterList parameters() { return stage_.parameters(); }
  /// MoE layers, MTP's included, in order.
  std::vector<nn::MoeLayer*> moe_layers();
  void initialize(std::uint64_t seed);
  /// nn::Attention::hold_selection of every layer, MTP's included: gradient checks need frozen block choices.
  void hold_selection(bool hold) { stage_.hold_selection(hold); }

  /// Forward and backward; gradients accumulate into the parameters.
  Losses forward_backward(Stream& stream, const MicroBatch& micro_batch);

  /// Logits [T, V] of whole sequences, in the accumulation dtype on the model's device; tokens I32 [B, S] on the host;
  /// mtp[k-1] has rows for every position, of which the last k of a sequence mean nothing.
  struct Logits {
    Tensor main;
    std::vector<Tensor> mtp;
  };
  Logits logits(Stream& stream, ConstView tokens);

  // Incremental decoding of one sequence (infer/).
  std::vector<std::unique_ptr<nn::AttentionCache>> make_caches(std::int64_t max_tokens);
  std::unique_ptr<nn::AttentionCache> make_mtp_cache(std::int64_t max_tokens);
  /// The next n tokens I32 [n], on the host -> hidden states after the final norm [n, d].
  Tensor decode(Stream& stream, ConstView tokens, std::vector<std::unique_ptr<nn::AttentionCache>>& caches);
  /// MTP depth 1 at n positions: next_tokens I32 [n] = t_{i+1} on the host, hidden [n, d] of `decode` -> [n, d], input of `head`.
  Tensor decode_mtp(Stream& stream, ConstView next_tokens, ConstView hidden, nn::AttentionCache& cache);
  /// hidden [n, d] -> logits [n, V], in the accumulation dtype.
  Tensor head(Stream& stream, ConstView hidden);

 private:
  /// tokens I32 [T] -> [T, d] after the final norm.
  Tensor run_blocks(nn::Context& ctx, ConstView tokens);

  ModelOptions options_;
  SharedTables tables_;
  Stage stage_;
};

}  // namespace hadal::model
