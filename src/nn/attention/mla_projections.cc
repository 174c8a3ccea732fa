#include "nn/attention/mla_projections.h"

#include "kernels/rms_norm.h"
#include "nn/attention/head_linear.h"

namespace hadal::nn {
namespace {

/// Norm gains start at one and do not decay.
Parameter make_gain(const std::string& name, std::int64_t width, Storage storage) {
  return {name, {width}, storage.accumulation(), {.init = Init::ones(), .decays = false}};
}

}  // namespace

MlaProjections::MlaProjections(const AttentionOptions& o, const std::string& prefix)
    : heads_(o.heads.size(o.num_heads)),
      nope_(o.qk_nope_head_dim),
      rope_(o.qk_rope_head_dim),
      rank_(o.kv_lora_rank),
      eps_(o.rms_norm_eps),
      q_b_(to_heads(prefix + (o.q_lora_rank > 0 ? ".q_b_proj.weight" : ".q_proj.weight"), o, o.num_heads, o.qk_width(),
                    o.q_lora_rank > 0 ? o.q_lora_rank : o.hidden_size)),
      kv_a_(prefix + ".kv_a_proj_with_mqa.weight", o.kv_lora_rank + o.qk_rope_head_dim, o.hidden_size, o.init_std, o.storage()),
      kv_a_norm_(make_gain(prefix + ".kv_a_layernorm.weight", o.kv_lora_rank, o.storage())) {
  if (o.q_lora_rank > 0) {
    q_a_.emplace(QueryLatent{Linear(prefix + ".q_a_proj.weight", o.q_lora_rank, o.hidden_size, o.init_std, o.storage()),
                             make_gain(prefix + ".q_a_layernorm.weight", o.q_lora_rank, o.storage())});
  }
}

void MlaProjections::collect(ParameterList& parameters) {
  if (q_a_) {
    parameters.push_back(&q_a_->down.weight());
    parameters.push_back(&q_a_->norm);
  }
  parameters.push_back(&q_b_.weight());
  parameters.push_back(&kv_a_.weight());
  parameters.push_back(&kv_a_norm_);
}

void MlaProjections::forward(Stream& stream, ConstView x, State& s) const {
  const std::int64_t rows = x.shape[0];
  s.x = x;
  if (q_a_) {
    s.q_a = q_a_->down.apply(stream, x);
    s.q_a_rms = Tensor::empty({rows}, accumulation_dtype(x.dtype), x.device);
    s.c_q = Tensor::empty(s.q_a.shape(), x.dtype, x.device);
    run(stream,
        kernels::RmsNormForward{.x = s.q_a, .gain = q_a_->norm.value(), .eps = eps_, .y = s.c_q, .inverse_rms = s.q_a_rms});
    s.q = q_b_.apply(stream, s.c_q);
  } else {
    s.q = q_b_.apply(stream, x);
  }
  const auto place = [&](View& target, Tensor& storage, std::int64_t width) {
    if (target.data != nullptr) return;
    storage = Tensor::empty({rows, width}, x.dtype, x.device);
    target = storage;
  };
  place(s.kv_a, s.kv_a_storage, rank_ + rope_);
  place(s.c, s.c_storage, rank_);
  kv_a_.apply(stream, x, s.kv_a);
  s.kv_a_rms = Tensor::empty({rows}, accumulation_dtype(x.dtype), x.device);
  run(stream,
      kernels::RmsNormForward{
          .x = s.kv_a, .x_stride = rank_ + rope_, .gain = kv_a_norm_.value(), .eps = eps_, .y = s.c, .inverse_rms = s.kv_a_rms});
}

void MlaProjections::backward_input(Stream& stream, State& s, View d_x, double beta) {
  run(stream, kernels::RmsNormBackward{.x = s.kv_a,
                                       .x_stride = rank_ + rope_,
                                       .gain = kv_a_norm_.value(),
                                       .inverse_rms = s.kv_a_rms,
                                       .d_y = s.d_c,
                                       .d_residual = {},
                                       .d_x = s.d_kv_a,
                                       .d_x_stride = rank_ + rope_,
                                       .d_gain = kv_a_norm_.grad()});
  kv_a_.apply_transposed(stream, s.d_kv_a, d_x, beta);
  if (q_a_) {
    const Tensor d_c_q = q_b_.apply_transposed(stream, s.d_q);
    s.d_q_a = Tensor::empty(s.q_a.shape(), s.q_a.dtype(), s.q_a.device());
    run(stream, kernels::RmsNormBackward{.x = s.q_a,
                                         .gain = q_a_->norm.value(),
                                         .inverse_rms = s.q_a_rms,
                                         .d_y = d_c_q,
                                         .d_residual = {},
                                         .d_x = s.d_q_a,
                                         .d_gain = q_a_->norm.grad()});
    q_a_->down.apply_transposed(stream, s.d_q_a, d_x, 1);
  } else {
    q_b_.apply_transposed(stream, s.d_q, d_x, 1);
  }
  s.q_a.reset();
  s.kv_a_storage.reset();
  s.d_c.reset();
}

void MlaProjections::backward_weight(Stream& stream, State& s) {
  if (q_a_) {
    q_b_.accumulate(stream, s.d_q, s.c_q);
    q_a_->down.accumulate(stream, s.d_q_a, s.x);
  } else {
    q_b_.accumulate(stream, s.d_q, s.x);
  }
  kv_a_.accumulate(stream, s.d_kv_a, s.x);
}

}  // namespace hadal::nn
