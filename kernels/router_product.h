// The router's products with its weight, which is held in the accumulation dtype (f32 beside bf16 activations): logits and what they give
// back. T tokens, d width, E experts.
//
//   logits = x w^T                                    [T, E]
//   d_x   += d_logits w;   d_w += d_logits^T x
//
// x and d_x share the model's dtype, all others have its accumulation dtype. Where both are the same (f32 or f64 on the CPU, f32 on
// CUDA) these are plain products. On CUDA with x in bf16, f32 operands are cut into bf16 parts, so that the tensor cores multiply them and
// no copy of x in f32 is made: three parts hold w and so the logits as f32 does, up to the order of sums; in the backward products two
// parts are kept (an error of 2^-17), and the share of d_x may be rounded before it is added (kernels/gemm.h). Same call, same bits.
#pragma once

#include "core/stream.h"
#include "core/tensor.h"

namespace hadal::kernels {

struct RouterLogits {
  static constexpr const char* kName = "router_logits";
  ConstView x;  ///< [T, d]
  ConstView w;  ///< [E, d]
  View logits;  ///< [T, E]
};

struct RouterLogitsBackward {
  static constexpr const char* kName = "router_logits_backward";
  ConstView x;         ///< [T, d]
  ConstView w;         ///< [E, d]
  ConstView d_logits;  ///< [T, E]
  View d_x;            ///< [T, d], added to
  View d_w;            ///< [E, d]
  bool add = true;     ///< to d_w; false: overwritten
};

void run(Stream& stream, const RouterLogits& args);
void run(Stream& stream, const RouterLogitsBackward& args);

}  // namespace hadal::kernels
