// Softmax attention without the S x S matrix, forward and backward (spec/model.md 3.1, 8.3, appendix B).
//
//   s[t,h,j] = scale * ( q[t,h,:w] . k[j,g(h)] + q[t,h,w:] . k_shared[j] ),  j visible to t;   o[t,h] = sum_j softmax_j(s)
//   v[j,g(h)] lse[t,h] = log sum_j exp(s);  no visible key: o = 0, lse = -inf (and all its gradients are 0)
//
// T = B * S query rows and Tk = B * Sk key rows, sequence by sequence. H query heads, Hk key heads, g(h) = h / (H / Hk).
// w = k.width; q.width = w + k_shared.width. k_shared is the one rotated key of MLA, shared by all heads (may be undefined).
// MLA in absorbed (MQA) form is Hk = 1, k = [c; kR], v = c: k and v may overlap in memory.
// Query t of a sequence (0-based) stands at position query_start + t; key j at position j.
// All of one dtype (f64, f32; on CUDA f32, bf16) but lse, which has its accumulation_dtype, as all sums have.
// Deterministic, independent of the number of threads.
#pragma once

#include "kernels/heads.h"
#include "kernels/op.h"

namespace hadal::kernels {

/// Which keys a query at position p sees.
struct AttentionMask {
  enum class Kind { kCausal, kBlocks } kind = Kind::kCausal;
  std::int64_t window = 0;        ///< kCausal: keys p-window+1 .. p; 0: all keys up to p
  std::int64_t block_length = 0;  ///< kBlocks: key i stands for tokens [i*stride, i*stride+length), seen when its last token <= p
  std::int64_t block_stride = 0;
};

struct FlashAttentionForward {
  static constexpr const char* kName = "flash_attention_forward";
  std::int64_t batch = 1;  ///< B
  ConstHeads q;            ///< [B*S, H, w + ws]
  ConstHeads k;            ///< [B*Sk, Hk, w]
  ConstHeads k_shared{};   ///< [B*Sk, 1, ws] or undefined
  ConstHeads v;            ///< [B*Sk, Hk, dv]
  AttentionMask mask{};
  std::int64_t query_start = 0;
  double scale = 1.0;
  Heads o;   ///< [B*S, H, dv]
  View lse;  ///< [B*S, H], accumulation_dtype of q
};

/// d_q is overwritten, and so are d_k, d_k_shared, d_v unless `add_to_keys` adds to what they hold (queries of one sequence in
/// several calls). Recomputes the probabilities from lse.
struct FlashAttentionBackward {
  static constexpr const char* kName = "flash_attention_backward";
  std::int64_t batch = 1;
  ConstHeads q, k;
  ConstHeads k_shared{};
  ConstHeads v;
  AttentionMask mask{};
  std::int64_t query_start = 0;
  double scale = 1.0;
  ConstHeads o;  ///< as computed forward
  ConstView lse;
  ConstHeads d_o;      ///< [B*S, H, dv]
  Heads d_q;           ///< [B*S, H, w + ws]
  Heads d_k;           ///< [B*Sk, Hk, w]
  Heads d_k_shared{};  ///< [B*Sk, 1, ws], sum over heads
  Heads d_v;           ///< [B*Sk, Hk, dv]; must not overlap d_k
  bool add_to_keys = false;
};

void run(Stream& stream, const FlashAttentionForward& args);
void run(Stream& stream, const FlashAttentionBackward& args);

}  // namespace hadal::kernels
