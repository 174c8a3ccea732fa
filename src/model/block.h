// Pre-norm transformer block (spec/model.md 2):  h' = h + Attn(RMSNorm(h));  out = h' + FFN(RMSNorm(h')).
// Rows of h are shards over tp; attention and dense FFN stand between two borders (parallel/tensor_boundary.h).
//
// Segments (model/segment.h), `>` a network one:
//   forward    dense: attention, feed forward       MoE: attention, dispatch >, experts >, combine
//   backward   dense: feed forward, attention       MoE: dispatch >, experts >, attention
// MoE weight gradients come while the input gradients travel back, before attention.
#pragma once

#include <memory>
#include <string>

#include "model/layer_options.h"
#include "model/segment.h"
#include "nn/attention/attention.h"
#include "nn/moe/moe_layer.h"
#include "nn/rms_norm.h"
#include "nn/rope.h"
#include "parallel/layer_groups.h"
#include "parallel/tensor_boundary.h"

namespace hadal::model {

class Block {
 public:
  /// Parameters under "model.layers.`layer_idx`".
  Block(const ModelOptions& model, std::int64_t layer_idx, const std::shared_ptr<const nn::RopeTable>& rope,
        const parallel::LayerGroups& groups);

  /// Appends the forward pass, h [T, d] -> [T, d] in place. `saved` is filled for backward (and keeps the input); null evaluates.
  /// h and *saved outlive the list.
  void add_forward(SegmentList& list, const nn::Context& ctx, Tensor& h, nn::SavedPtr* saved);
  /// Appends the backward pass, d_h [T, d] in place. With `weights`, weight gradients follow at once and `saved` is freed.
  void add_backward(SegmentList& list, const nn::Context& ctx, Tensor& d_h, nn::SavedPtr& saved, bool weights);
  /// What a backward pass without `weights` left to do.
  void backward_weight(nn::Context& ctx, nn::Saved& saved);
  void collect(nn::ParameterList& parameters);

  /// Evaluation alone, h [T, d] -> [T, d].
  Tensor forward(const nn::Context& ctx, Tensor h);
  /// The next n tokens of one sequence against its cache; h [n, d].
  Tensor decode(nn::Context& ctx, ConstView h, nn::AttentionCache& cache);
  nn::Attention& attention() { return *attention_; }
  /// Null in a dense layer.
  nn::MoeLayer* moe() { return moe_; }

 private:
  struct Record;
  struct Forward;
  struct Backward;

  void forward_attention(Forward& pass);
  void backward_attention(Backward& pass);

  int layer_idx_;
  nn::RmsNorm attention_norm_;
  std::unique_ptr<nn::Attention> attention_;
  parallel::TensorParallelLayer attention_rows_;  ///< attention_ between its borders
  nn::RmsNorm ffn_norm_;
  std::unique_ptr<nn::Layer> ffn_;
  nn::MoeLayer* moe_ = nullptr;
};

}  // namespace hadal::model
