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
    Tensor projected;       ///< [T, d]: h'
    Tensor block_out;       ///< [T, d]
    nn::SavedPtr block;
    Tensor d_block_out, d_projected;
  };

  /// embedding [T, d] = Emb(t_{i+k}), hidden [T, d] = h^{k-1}; both stay valid until backward. -> h^k [T, d].
  Tensor forward(nn::Context& ctx, ConstView embedding, ConstView hidden, Record* record);
  struct InputGradients {
    Tensor d_embedding, d_hidden;
  };
  InputGradients backward_input(nn::Context& ctx, ConstView d_out, Record& record);
  void backward_weight(nn::Context& ctx, Record& record);
  void collect(nn::ParameterList& parameters);

  /// The next n positions of one sequence.
  Tensor decode(nn::Context& ctx, ConstView embedding, ConstView hidden, nn::AttentionCache& cache);
  Block& block() { return block_; }

 private:
  Tensor project(nn::Context& ctx, ConstView embedding, ConstView hidden);

  std::int64_t hidden_size_;
  nn::RmsNorm embedding_norm_;
  nn::RmsNorm hidden_norm_;
  nn::Parameter projection_;  ///< eh_proj [d, 2d]
  Block block_;
  nn::RmsNorm out_norm_;
};

}  // namespace hadal::model
