// Dense grouped-query attention: q_proj, k_proj, v_proj, o_proj; every channel of queries and keys rotates.
// Shape legend: T = B*S rows, d hidden size, H query heads, G key/value heads (of this rank), dk and
// dv their widths.
#pragma once

#include <memory>
#include <string>

#include "nn/attention/attention.h"
#include "nn/attention/attention_options.h"
#include "nn/attention/attention_spans.h"
#include "nn/linear.h"
#include "nn/rope.h"

namespace hadal::nn {

struct GqaSaved;

class GqaAttention : public Attention {
 public:
  GqaAttention(const AttentionOptions& options, const std::string& prefix, std::shared_ptr<const RopeTable> rope);

  Tensor forward(Context& ctx, ConstView x, SavedPtr* saved) override;
  Tensor backward_input(Context& ctx, ConstView d_y, Saved& saved) override;
  void backward_weight(Context& ctx, Saved& saved) override;
  void collect(ParameterList& parameters) override;

  std::unique_ptr<AttentionCache> make_cache(std::int64_t max_tokens) const override;
  Tensor decode(Context& ctx, ConstView x, AttentionCache& cache) override;

 private:
  AttentionInput input(const GqaSaved& s) const;

  AttentionOptions options_;  ///< with the heads of this rank
  double scale_;
  std::shared_ptr<const RopeTable> rope_;
  Linear q_proj_;  ///< [H dk, d]
  Linear k_proj_;  ///< [G dk, d]
  Linear v_proj_;  ///< [G dv, d]
  Linear o_proj_;  ///< [d, H dv]
};

}  // namespace hadal::nn
