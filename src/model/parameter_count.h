// Parameters and model flops of a shape, without making a tensor. Names and shapes: spec/interop.md 3.1, 3.4, 7.3; the counts
// of the presets are checked against spec/model.md 1. The balancing bias is a buffer and not counted.
#pragma once

#include <cstdint>

#include "config/config.h"

namespace hadal::model {

/// Trainable parameters of the main model by kind, and of the MTP modules as one sum.
struct ParameterCount {
  std::int64_t embedding = 0;
  std::int64_t head = 0;
  std::int64_t attention = 0;  ///< MLA or GQA projections of all layers
  std::int64_t nsa = 0;        ///< what NSA adds to them: branch projections, compression, gates
  std::int64_t dense_ffn = 0;
  std::int64_t routed_experts = 0;
  std::int64_t shared_experts = 0;
  std::int64_t router = 0;
  std::int64_t norms = 0;  ///< gains of all RMSNorms, the latent ones included
  std::int64_t mtp = 0;    ///< MTP modules: block, eh_proj and norms; embedding and head are the main model's

  std::int64_t total = 0;   ///< main model, MTP apart (as published counts have it)
  std::int64_t active = 0;  ///< of total, what one token uses: top_k routed experts; both tables included
  std::int64_t total_with_mtp = 0;
};

/// UserError when the count does not fit 63 bits.
ParameterCount count_parameters(const ModelSection& model);

/// Multiplications of one token that model flops count: every weight matrix entry that the token uses once (head and MTP
/// included, the embedding look-up and norms not).
std::int64_t multiplied_per_token(const ModelSection& model);

/// Forward + backward flops per token of causal sequences of `sequence_length` (spec/cli.md, last paragraph):
/// 6 multiplied_per_token + 3 layers H S (qk + v), the sum over the layers; an NSA layer counts the keys its three branches
/// visit, (qk + v) each, instead of S / 2. MTP modules count as layers.
double model_flops_per_token(const ModelSection& model, std::int64_t sequence_length);

}  // namespace hadal::model
