// One multi-token prediction module (spec/model.md 7), depth k:
//   h'_i = M [ RMSNorm_e(Emb(t_{i+k})) ; RMSNorm_h(h^{k-1}_i) ];  h^k = RMSNorm_out(Block(h'))
// The embedding comes first in M's columns, as in released weights; the head and the embedding are the main model's own.
#pragma once

#include "model/block.h"

namespace hadal::model {

class MtpModule {
 public:
  /// Parameters under "model.layers.`layer_idx`".
  MtpModule(const ModelOptions& model, std::int64_t layer_idx, const std::shared_ptr<const nn::RopeTable>& rope,
            const parallel::LayerGroups& groups);

  struct Record {
    nn::RmsNormSaved embedding_norm, hidden_norm, out_norm;
    Tensor embedding;       ///< [T, d]: normed
    Tensor hidden;          ///< [T, d]: normed
    Tensor block_out;       ///< [T, d]
    nn::SavedPtr block;
    Tensor d_projected;
  };

  /// What stands before the block: embedding [T, d] = Emb(t_{i+k}), hidden [T, d] = h^{k-1}; both stay valid until backward.
  /// -> h' [T, d].
  Tensor project(nn::Context& ctx, ConstView embedding, ConstView hidden, Record* record);
  /// What stands behind it: -> h^k [T, d].
  Tensor finish(nn::Context& ctx, Tensor block_out, Record* record);
  /// d_out of h^k -> gradient of the block's output.
  Tensor backward_finish(nn::Context& ctx, ConstView d_out, Record& record);
  struct InputGradients {
    Tensor d_embedding, d_hidden;
  };
  InputGradients backward_project(nn::Context& ctx, Tensor d_projected, Record& record);
  /// The block's too where its pass left them (its record is still there).
  void backward_weight(nn::Context& ctx, Record& record);
  void collect(nn::ParameterList& parameters);

  /// The next n positions of one sequence.
  Tensor decode(nn::Context& ctx, ConstView embedding, ConstView hidden, nn::AttentionCache& cache);
  /// Evaluation alone: the whole module.
  Tensor forward(nn::Context& ctx, ConstView embedding, ConstView hidden);
  Block& block() { return block_; }

 private:
  Tensor multiply(nn::Context& ctx, ConstView embedding, ConstView hidden);

  std::int64_t hidden_size_;
  nn::RmsNorm embedding_norm_;
  nn::RmsNorm hidden_norm_;
  nn::Parameter projection_;  ///< eh_proj [d, 2d]
  Block block_;
  nn::RmsNorm out_norm_;
};

}  // namespace hadal::model
