// Gated pooling of blocks of tokens into one compressed entry (phi of spec/model.md 8.1 and 9.2):
//   logits = W u;   alpha[i,j] = softmax_j(logits[i d + j] + position[j]) per channel;   y[i] = sum_j alpha[i,j] x[i d + j]
// u [N, in] gives the weights, x the values (often the same). W [w, in] and position [l, w] start at zero: mean pooling.
#pragma once

#include <string>
#include <vector>

#include "kernels/heads.h"
#include "nn/attention/attention_options.h"
#include "nn/attention/attention_spans.h"
#include "nn/linear.h"

namespace hadal::nn {

class GatedPooling {
 public:
  /// Of one micro-batch.
  struct State {
    std::vector<Tensor> logits;  ///< of each span, as x: [tokens, G w]
    std::vector<Tensor> d_logits;
  };

  GatedPooling(const NsaOptions& options, std::string weight_name, std::string position_name, std::int64_t out, std::int64_t in,
               Storage storage);

  /// u [B*S*G, in]; x [B*S, G, w]; y [entries, G, w]. Each span's tokens and entries.
  void forward(Stream& stream, const PoolSpans& spans, ConstView u, kernels::ConstHeads x, kernels::Heads y, State& state) const;
  /// d_x is overwritten in the spans' rows, or added to (add_to_x), then d_u += d_logits W (d_u may be d_x's own memory).
  /// Finishes the position's gradient.
  void backward_input(Stream& stream, const PoolSpans& spans, kernels::ConstHeads x, kernels::ConstHeads d_y, kernels::Heads d_x,
                      bool add_to_x, View d_u, State& state);
  void backward_weight(Stream& stream, const PoolSpans& spans, ConstView u, State& state);
  void collect(ParameterList& parameters);

 private:
  /// [tokens * G, w] as heads of `like`.
  template <class AnyView>
  static auto logit_heads(AnyView logits, const kernels::ConstHeads& like) {
    return kernels::heads_of(logits.reshape({like.tokens, like.heads * like.width}), like.heads, like.width, 0, like.width);
  }

  std::int64_t block_length_, block_stride_;
  Linear weight_;
  Parameter position_;
};

}  // namespace hadal::nn
