#include "nn/attention/kv_up_projection.h"

#include "kernels/gemm.h"
#include "nn/attention/head_linear.h"

namespace hadal::nn {
namespace {

using kernels::ConstHeads;
using kernels::Gemm;
using kernels::Heads;

/// One head of packed rows as a [T, width] matrix whose leading dimension is the token stride.
ConstView matrix(const Stream& stream, const ConstHeads& x, std::int64_t head) {
  return {static_cast<const char*>(x.data) + static_cast<std::size_t>(head * x.head_stride) * size_of(x.dtype),
          x.dtype,
          {x.tokens, x.width},
          stream.device()};
}

View matrix(const Stream& stream, const Heads& x, std::int64_t head) {
  return {static_cast<char*>(x.data) + static_cast<std::size_t>(head * x.head_stride) * size_of(x.dtype),
          x.dtype,
          {x.tokens, x.width},
          stream.device()};
}

}  // namespace

KvUpProjection::KvUpProjection(const AttentionOptions& o, const std::string& name)
    : heads_(o.heads.size(o.num_heads)),
      nope_(o.qk_nope_head_dim),
      rope_(o.qk_rope_head_dim),
      value_(o.v_head_dim),
      rank_(o.kv_lora_rank),
      linear_(to_heads(name, o, o.num_heads, o.qk_nope_head_dim + o.v_head_dim, o.kv_lora_rank)) {}

ConstView KvUpProjection::key_rows(std::int64_t head) const {
  const std::int64_t begin = head * (nope_ + value_);
  return linear_.weight().value().rows(begin, begin + nope_);
}

ConstView KvUpProjection::value_rows(std::int64_t head) const {
  const std::int64_t begin = head * (nope_ + value_) + nope_;
  return linear_.weight().value().rows(begin, begin + value_);
}

Tensor KvUpProjection::project(Stream& stream, const KeyPlan& plan, ConstView c) const {
  Tensor kv = Tensor::empty({plan.rows, linear_.out()}, c.dtype, c.device);
  for (const RowRange& range : plan.ranges) {
    linear_.apply(stream, c.rows(range.from, range.from + range.count), kv.view().rows(range.to, range.to + range.count));
  }
  return kv;
}

void KvUpProjection::project_backward(Stream& stream, const KeyPlan& plan, ConstView d_kv, View d_c, double beta) const {
  for (const RowRange& range : plan.ranges) {
    linear_.apply_transposed(stream, d_kv.rows(range.to, range.to + range.count), d_c.rows(range.from, range.from + range.count),
                             beta);
  }
}

void KvUpProjection::project_weight(Stream& stream, const KeyPlan& plan, ConstView d_kv, ConstView c) {
  for (const RowRange& range : plan.ranges) {
    linear_.accumulate(stream, d_kv.rows(range.to, range.to + range.count), c.rows(range.from, range.from + range.count));
  }
}

void KvUpProjection::absorb(Stream& stream, ConstHeads q, Heads q_latent) const {
  for (std::int64_t h = 0; h < heads_; ++h) {
    run(stream,
        Gemm{.a = matrix(stream, q, h), .b = key_rows(h), .c = matrix(stream, q_latent, h), .lda = q.token_stride, .ldc = q_latent.token_stride});
  }
}

void KvUpProjection::expand(Stream& stream, ConstHeads z, Heads o) const {
  for (std::int64_t h = 0; h < heads_; ++h) {
    run(stream, Gemm{.a = matrix(stream, z, h),
                     .b = value_rows(h),
                     .c = matrix(stream, o, h),
                     .transpose_b = true,
                     .lda = z.token_stride,
                     .ldc = o.token_stride});
  }
}

void KvUpProjection::absorb_backward(Stream& stream, ConstHeads d_q_latent, Heads d_q) const {
  for (std::int64_t h = 0; h < heads_; ++h) {
    run(stream, Gemm{.a = matrix(stream, d_q_latent, h),
                     .b = key_rows(h),
                     .c = matrix(stream, d_q, h),
                     .transpose_b = true,
                     .beta = 1,
                     .lda = d_q_latent.token_stride,
                     .ldc = d_q.token_stride});
  }
}

void KvUpProjection::expand_backward(Stream& stream, ConstHeads d_o, Heads d_z) const {
  for (std::int64_t h = 0; h < heads_; ++h) {
    run(stream,
        Gemm{.a = matrix(stream, d_o, h), .b = value_rows(h), .c = matrix(stream, d_z, h), .lda = d_o.token_stride, .ldc = d_z.token_stride});
  }
}

void KvUpProjection::absorb_weight(Stream& stream, ConstHeads q, ConstHeads d_q_latent) {
  for (std::int64_t h = 0; h < heads_; ++h) {
    const std::int64_t begin = h * (nope_ + value_);
    run(stream, Gemm{.a = matrix(stream, q, h),
                     .b = matrix(stream, d_q_latent, h),
                     .c = linear_.weight().grad().rows(begin, begin + nope_),
                     .transpose_a = true,
                     .beta = 1,
                     .lda = q.token_stride,
                     .ldb = d_q_latent.token_stride});
  }
}

void KvUpProjection::expand_weight(Stream& stream, ConstHeads z, ConstHeads d_o) {
  for (std::int64_t h = 0; h < heads_; ++h) {
    const std::int64_t begin = h * (nope_ + value_) + nope_;
    run(stream, Gemm{.a = matrix(stream, d_o, h),
                     .b = matrix(stream, z, h),
                     .c = linear_.weight().grad().rows(begin, begin + value_),
                     .transpose_a = true,
                     .beta = 1,
                     .lda = d_o.token_stride,
                     .ldb = z.token_stride});
  }
}

bool KvUpProjection::absorbing_pays(LatentMode mode, std::int64_t queries, std::int64_t pairs, std::int64_t keys) const {
  if (mode != LatentMode::kAuto) return mode == LatentMode::kMqa;
  const std::int64_t absorbed = pairs * (2 * rank_ + rope_) + queries * rank_ * (nope_ + value_);
  const std::int64_t materialised = pairs * (nope_ + rope_ + value_) + keys * rank_ * (nope_ + value_);
  return absorbed < materialised;
}

}  // namespace hadal::nn
