// What sparse MLA keeps of a sequence (spec/model.md 9.4): the latent and the rotated key of every token, compressed entries, and
// the last l-1 rows of [a_c | r] as projected, whose r the next compressed entry will pool. That tail holds
// CacheTail::kMaxRollback tokens more, so that a rejected speculation can be taken back.
#pragma once

#include "kernels/nsa.h"
#include "nn/attention/attention.h"
#include "nn/attention/attention_options.h"
#include "nn/attention/cache_rows.h"

namespace hadal::nn {

class NsaMlaCache : public AttentionCache {
 public:
  NsaMlaCache(std::int64_t max_tokens, const AttentionOptions& o)
      : c(max_tokens, o.kv_lora_rank, o.storage()),
        k_rope(max_tokens, o.qk_rope_head_dim, o.storage()),
        c_pooled(entries(max_tokens, *o.nsa), o.kv_lora_rank, o.storage()),
        k_rope_pooled(entries(max_tokens, *o.nsa), o.qk_rope_head_dim, o.storage()),
        kv_a(o.nsa->block_length - 1, o.kv_lora_rank + o.qk_rope_head_dim, o.storage()),
        nsa_(*o.nsa) {}

  std::int64_t length() const override { return c.length(); }
  void truncate(std::int64_t length) override {
    HADAL_CHECK(length >= 0 && length <= c.length(), "{} of {} tokens", length, c.length());
    kv_a.truncate(length);
    for (CacheRows* rows : {&c, &k_rope}) rows->truncate(length);
    for (CacheRows* rows : {&c_pooled, &k_rope_pooled}) rows->truncate(entries(length, nsa_));
  }
  double bytes_per_token() const override {
    double bytes = kv_a.bytes();
    for (const CacheRows* rows : {&c, &k_rope, &c_pooled, &k_rope_pooled}) bytes += rows->bytes();
    return length() == 0 ? 0.0 : bytes / static_cast<double>(length());
  }

  CacheRows c;              ///< [tokens, R], normed
  CacheRows k_rope;         ///< [tokens, dr], rotated
  CacheRows c_pooled;       ///< [entries, R], normed
  CacheRows k_rope_pooled;  ///< [entries, dr], rotated
  CacheTail kv_a;           ///< [tokens, R + dr]

 private:
  static std::int64_t entries(std::int64_t tokens, const NsaOptions& nsa) {
    return kernels::num_compressed(tokens, nsa.block_length, nsa.block_stride);
  }

  NsaOptions nsa_;
};

}  // namespace hadal::nn
