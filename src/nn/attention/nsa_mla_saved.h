// What sparse MLA keeps of one micro-batch. Names and shapes as in nsa_mla_attention.h.
#pragma once

#include "nn/attention/branch_gate.h"
#include "nn/attention/gated_pooling.h"
#include "nn/attention/mla_projections.h"

namespace hadal::nn {

struct NsaMlaSaved : Saved {
  MlaProjections::State latent;  ///< its q is rotated, its kv_a is not
  Tensor c_all, r_all;           ///< context parallelism: c [B*S, R] and r [B*S, dr] of whole sequences
  Tensor k_rope;                 ///< [B*S, dr]: r rotated
  // Compressed entries.
  GatedPooling::State pool_latent, pool_rope;
  Tensor pooled, pooled_rms;  ///< of the entries made here, [entries, R] before the norm, [entries]
  Tensor c_pooled;            ///< [B Nc, R]
  Tensor k_rope_pooled;       ///< [B Nc, dr], rotated
  // Branches.
  PerBranch<Tensor> kv;  ///< [keys, H (dn + dv)]; none for a branch in MQA form, nor for a window on the selected branch's.
                         ///< Context parallelism: the selected branch's, of whole sequences, are made again in the backward pass
  bool in_latent = false;    ///< selected branch in MQA form
  Tensor q_latent;           ///< [T, H (R + dr)]
  Tensor z;                  ///< [T, H R]
  PerBranch<Tensor> o, lse;  ///< [T, H dv], [T, H]
  Tensor blocks;             ///< I32 [T, groups, n]
  BranchGate::State gate;
  Tensor mixed;  ///< [T, H dv]
  // Backward.
  ConstView d_y;
  PerBranch<Tensor> d_kv;
  PerBranch<Tensor> d_k_rope;       ///< of the entries' and the tokens' rotated keys
  Tensor d_o_selected, d_q_latent;  ///< MQA form
  Tensor d_c_key, d_c_value;        ///< MQA form: of c as key and as value

  /// c of whole sequences [B*S, R].
  ConstView c() const { return c_all.defined() ? c_all.view() : static_cast<ConstView>(latent.c); }
};

}  // namespace hadal::nn
