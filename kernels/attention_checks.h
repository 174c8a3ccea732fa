// Shape checks that the attention ops share.
#pragma once

#include "core/error.h"
#include "kernels/heads.h"

namespace hadal::kernels {

inline void check_heads(const char* op, const char* name, const ConstHeads& x, DType dtype, std::int64_t tokens,
                        std::int64_t heads, std::int64_t width) {
  HADAL_CHECK(x.dtype == dtype && x.tokens == tokens && x.heads == heads && x.width == width,
              "{}: {} is {} [{}, {}, {}], wanted {} [{}, {}, {}]", op, name, name_of(x.dtype), x.tokens, x.heads, x.width,
              name_of(dtype), tokens, heads, width);
  HADAL_CHECK(x.defined() || tokens == 0, "{}: {} is undefined", op, name);
}

/// q, k, k_shared and v against each other. Keys come in `batch` equal sequences, and so do queries.
inline void check_attention_inputs(const char* op, std::int64_t batch, const ConstHeads& q, const ConstHeads& k,
                                   const ConstHeads& k_shared, const ConstHeads& v) {
  HADAL_CHECK(batch >= 1 && q.tokens % batch == 0 && k.tokens % batch == 0, "{}: batch {} of {} queries, {} keys", op, batch,
              q.tokens, k.tokens);
  HADAL_CHECK(q.heads >= 1 && k.heads >= 1 && q.heads % k.heads == 0, "{}: {} query heads over {} key heads", op, q.heads,
              k.heads);
  const std::int64_t shared = k_shared.defined() ? k_shared.width : 0;
  check_heads(op, "q", q, q.dtype, q.tokens, q.heads, k.width + shared);
  check_heads(op, "k", k, q.dtype, k.tokens, k.heads, k.width);
  if (k_shared.defined()) check_heads(op, "k_shared", k_shared, q.dtype, k.tokens, 1, shared);
  check_heads(op, "v", v, q.dtype, k.tokens, k.heads, v.width);
}

/// lse is held in the dtype of sums: f32 beside bf16 queries.
inline void check_lse(const char* op, const ConstView& lse, const ConstHeads& q) {
  HADAL_CHECK(lse.dtype == accumulation_dtype(q.dtype) && lse.shape == Shape({q.tokens, q.heads}), "{}: lse is {} {}", op, name_of(lse.dtype),
              lse.shape.str());
}

/// d_q, d_k, d_k_shared, d_v like what they are the gradients of; d_o and o [queries, H, dv].
template <class Args>
void check_attention_gradients(const Args& args) {
  const char* const op = Args::kName;
  const DType dtype = args.q.dtype;
  check_attention_inputs(op, args.batch, args.q, args.k, args.k_shared, args.v);
  HADAL_CHECK(args.query_start >= 0, "{}: query_start {}", op, args.query_start);
  check_lse(op, args.lse, args.q);
  check_heads(op, "o", args.o, dtype, args.q.tokens, args.q.heads, args.v.width);
  check_heads(op, "d_o", args.d_o, dtype, args.q.tokens, args.q.heads, args.v.width);
  check_heads(op, "d_q", args.d_q, dtype, args.q.tokens, args.q.heads, args.q.width);
  check_heads(op, "d_k", args.d_k, dtype, args.k.tokens, args.k.heads, args.k.width);
  check_heads(op, "d_v", args.d_v, dtype, args.v.tokens, args.v.heads, args.v.width);
  if (args.k_shared.defined()) check_heads(op, "d_k_shared", args.d_k_shared, dtype, args.k.tokens, 1, args.k_shared.width);
}

}  // namespace hadal::kernels
