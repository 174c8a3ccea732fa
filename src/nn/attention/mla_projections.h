// The part of multi-head latent attention that dense and sparse layers share (spec/model.md 3.1): down-projections, their norms,
// and the query projection.
//   q = W_UQ RMSNorm(W_DQ x)  (or W_Q x without q_lora_rank);   [a_c | r] = W_DKV|KR x;   c = RMSNorm(a_c)
// Shape legend: T rows, d hidden size, H heads of this rank, dn and dr widths of a query without and with rotation, R =
// kv_lora_rank.
#pragma once

#include <optional>
#include <string>

#include "kernels/heads.h"
#include "nn/attention/attention_options.h"
#include "nn/linear.h"

namespace hadal::nn {

class MlaProjections {
 public:
  /// Of one micro-batch. After backward_input only what backward_weight reads is left.
  struct State {
    ConstView x;                     ///< [T, d]
    Tensor q_a, q_a_rms;             ///< [T, q_lora_rank], [T]
    Tensor c_q;                      ///< [T, q_lora_rank]
    Tensor q;                        ///< [T, H (dn + dr)], not rotated by `forward`
    View kv_a;                       ///< [T, R + dr]: a_c, then r as projected
    Tensor kv_a_rms;                 ///< [T]
    View c;                          ///< [T, R]
    Tensor kv_a_storage, c_storage;  ///< unless the caller gave places of its own
    // Backward: filled by the caller ...
    Tensor d_q;     ///< of q before rotation
    Tensor d_kv_a;  ///< its last dr columns: of r before rotation
    Tensor d_c;     ///< [T, R]
    // ... and by backward_input.
    Tensor d_q_a;
  };

  MlaProjections(const AttentionOptions& options, const std::string& prefix);

  /// Fills q, kv_a and c. Where state.kv_a or state.c is set before, it is the place to write (rows of a cache).
  void forward(Stream& stream, ConstView x, State& state) const;
  /// d_x [T, d], overwritten when beta = 0.
  void backward_input(Stream& stream, State& state, View d_x, double beta);
  void backward_weight(Stream& stream, State& state);
  void collect(ParameterList& parameters);

  // Packed rows as heads; of a View or a ConstView.
  template <class AnyView>
  auto q_nope(AnyView q) const {
    return kernels::heads_of(q, heads_, nope_ + rope_, 0, nope_);
  }
  template <class AnyView>
  auto q_rope(AnyView q) const {
    return kernels::heads_of(q, heads_, nope_ + rope_, nope_, rope_);
  }
  template <class AnyView>
  auto q_all(AnyView q) const {
    return kernels::heads_of(q, heads_, nope_ + rope_, 0, nope_ + rope_);
  }
  /// The last dr columns of kv_a or its gradient, as one head.
  template <class AnyView>
  auto r(AnyView kv_a) const {
    return kernels::heads_of(kv_a, 1, rank_ + rope_, rank_, rope_);
  }

 private:
  /// Query latent: only with q_lora_rank.
  struct QueryLatent {
    Linear down;  ///< q_a_proj
    Parameter norm;
  };

  std::int64_t heads_, nope_, rope_, rank_;
  double eps_;
  std::optional<QueryLatent> q_a_;
  Linear q_b_;  ///< q_b_proj [H (dn + dr), q_lora_rank], or q_proj [H (dn + dr), d]
  Linear kv_a_;
  Parameter kv_a_norm_;
};

}  // namespace hadal::nn
