// Output head and cross-entropy in one: logits = h w^T, never held for more than a chunk of rows.
//
//   nll_t  = logsumexp_v(logits_tv) - logits_t,target(t)
//   loss   = sum_t loss_weight_t nll_t
//   d_h_t  = scale loss_weight_t (softmax(logits_t) - onehot(target_t)) w
//   d_w   += scale sum_t loss_weight_t (softmax(logits_t) - onehot(target_t))^T h_t
//
// The gradients are made in the same pass, while a chunk's logits are at hand: a later backward would have to form the logits
// again (a fourth product). So the layer asks for d_h and d_w in its forward; `scale` is the factor of this loss in what is
// trained (1 for the main loss with loss_weight = mask / valid tokens, lambda / D for an MTP depth), known beforehand.
//
// Shape legend: T tokens, d width, V vocabulary. h, w and d_h share one dtype; loss_weight, token_loss and d_w have its
// accumulation_dtype (f32 for bf16, where logits and their gradients are held in bf16 between the products).
// A token with target < 0 or loss_weight 0 is ignored: loss and gradient 0. The sum is that of loss_sum.h. Chunks are
// fixed by V and the dtype: same bits for any thread count.
#pragma once

#include "core/stream.h"
#include "core/tensor.h"

namespace hadal::kernels {

struct LinearCrossEntropy {
  static constexpr const char* kName = "linear_cross_entropy";
  ConstView h;              ///< [T, d]
  ConstView w;              ///< [V, d]
  ConstView targets;        ///< I32 [T]; -1 = ignored, else < V
  ConstView loss_weight{};  ///< [T]; empty = 1 everywhere
  View loss;                ///< F64 [1]: sum of loss_weight * nll (not scaled)
  View token_loss;          ///< [T]: nll, 0 where ignored
  View prediction{};  ///< I32 [T]: token of the greatest logit, the lower one of a tie, also where ignored; empty = not wanted
  double scale = 1;   ///< factor of both gradients
  View d_h{};         ///< [T, d], overwritten; empty = not wanted
  View d_w{};         ///< [V, d], accumulated; empty = not wanted
  bool add_to_d_w = true;  ///< false: d_w is overwritten
};

void run(Stream& stream, const LinearCrossEntropy& args);

}  // namespace hadal::kernels
