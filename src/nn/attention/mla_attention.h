// Dense multi-head latent attention (spec/model.md 3). Training runs in MHA form, on views into the packed up-projection;
// decoding caches per token the latent c and the rotated shared key alone, and attends in whichever form is cheaper.
// Shape legend: T = B*S rows, d hidden size, H heads (of this rank), dn/dr/dv widths, R = kv_lora_rank.
#pragma once

#include <memory>
#include <string>

#include "nn/attention/attention.h"
#include "nn/attention/kv_up_projection.h"
#include "nn/attention/mla_projections.h"
#include "nn/rope.h"

namespace hadal::nn {

struct MlaSaved;

class MlaAttention : public Attention {
 public:
  MlaAttention(const AttentionOptions& options, const std::string& prefix, std::shared_ptr<const RopeTable> rope);

  Tensor forward(Context& ctx, ConstView x, SavedPtr* saved) override;
  Tensor backward_input(Context& ctx, ConstView d_y, Saved& saved) override;
  void backward_weight(Context& ctx, Saved& saved) override;
  void collect(ParameterList& parameters) override;

  std::unique_ptr<AttentionCache> make_cache(std::int64_t max_tokens) const override;
  Tensor decode(Context& ctx, ConstView x, AttentionCache& cache) override;

 private:
  /// c and the rotated keys of whole sequences.
  void gather_latents(Context& ctx, MlaSaved& s) const;
  static ConstView latents(const MlaSaved& s);
  AttentionInput input(const MlaSaved& s) const;

  AttentionOptions options_;  ///< with the heads of this rank
  double scale_;
  std::shared_ptr<const RopeTable> rope_;
  MlaProjections projections_;
  KvUpProjection kv_b_;
  Linear o_proj_;
};

}  // namespace hadal::nn
