// The loss of a batch from the losses of its tokens: sum_t loss_weight_t token_loss_t in f64, where the losses lie. What every head
// ends with (linear_cross_entropy.h; vocab_cross_entropy.h over several ranks).
//
// Shape legend: T tokens. On the CPU the sum runs in token order; on CUDA in the order of equal runs of tokens, one a thread.
#pragma once

#include "core/stream.h"
#include "core/tensor.h"

namespace hadal::kernels {

struct LossSum {
  static constexpr const char* kName = "loss_sum";
  ConstView token_loss;     ///< [T], f32 or f64
  ConstView loss_weight{};  ///< [T], same dtype; empty = 1 everywhere
  View loss;                ///< F64 [1], overwritten; 0 without tokens
};

void run(Stream& stream, const LossSum& args);

}  // namespace hadal::kernels
