// What sparse MLA keeps of one micro-batch. Names and shapes as in nsa_mla_attention.h.
#pragma once

#include "nn/attention/branch_gate.h"
#include "nn/attention/gated_pooling.h"
#include "nn/attention/mla_projections.h"

namespace hadal::nn {

struct NsaMlaSaved : Saved {
  MlaProjections::State latent;  ///< its q is rotated, its kv_a is not
  Tensor k_rope;                 ///< [T, dr], rotated
  // Compressed entries.
  GatedPooling::State pool_latent, pool_rope;
  Tensor pooled, pooled_rms;  ///< [B Nc, R] before the norm, [B Nc]
  Tensor c_pooled;            ///< [B Nc, R]
  Tensor k_rope_pooled;       ///< [B Nc, dr], rotated
  // Branches.
  PerBranch<Tensor> kv;      ///< [B Nc or T, H (dn + dv)]; tied: the window's serves the selected branch too
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
  Tensor d_k_rope_selected, d_k_rope_window, d_k_rope_pooled;
  Tensor d_o_selected, d_q_latent;  ///< MQA form
  Tensor d_c_key, d_c_value;        ///< MQA form: of c as key and as value
};

}  // namespace hadal::nn
