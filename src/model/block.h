// Pre-norm transformer block (spec/model.md 2):  h' = h + Attn(RMSNorm(h));  out = h' + FFN(RMSNorm(h')).
// Rows of h are shards over tp; attention and dense FFN stand between two borders (parallel/tensor_boundary.h).
#pragma once

#include <memory>
#include <string>

#include "model/layer_options.h"
#include "nn/attention/attention.h"
#include "nn/moe/moe_layer.h"
#include "nn/rms_norm.h"
#include "nn/rope.h"
#include "parallel/layer_groups.h"
#include "parallel/tensor_boundary.h"

namespace hadal::model {

class Block : public nn::Layer {
 public:
  /// Parameters under "model.layers.`layer_idx`".
  Block(const ModelOptions& model, std::int64_t layer_idx, const std::shared_ptr<const nn::RopeTable>& rope,
        const parallel::LayerGroups& groups);

  /// h [T, d] -> [T, d].
  Tensor forward(nn::Context& ctx, ConstView h, nn::SavedPtr* saved) override;
  Tensor backward_input(nn::Context& ctx, ConstView d_out, nn::Saved& saved) override;
  void backward_weight(nn::Context& ctx, nn::Saved& saved) override;
  void collect(nn::ParameterList& parameters) override;

  /// The next n tokens of one sequence against its cache; h [n, d].
  Tensor decode(nn::Context& ctx, ConstView h, nn::AttentionCache& cache);
  nn::Attention& attention() { return *attention_; }
  /// Null in a dense layer.
  nn::MoeLayer* moe() { return moe_; }

 private:
  struct Record;

  nn::RmsNorm attention_norm_;
  std::unique_ptr<nn::Attention> attention_;
  parallel::TensorParallelLayer attention_rows_;  ///< attention_ between its borders
  nn::RmsNorm ffn_norm_;
  std::unique_ptr<nn::Layer> ffn_;
  nn::MoeLayer* moe_ = nullptr;
};

}  // namespace hadal::model
