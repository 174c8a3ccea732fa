// What sparse GQA keeps of a sequence (spec/model.md 8.6): keys and values of the selected branch for every token, compressed
// entries, the last w-1 tokens of the window branch and the last l-1 raw tokens from which the next compressed entry will be
// pooled. Tails hold CacheTail::kMaxRollback tokens more than that, so that a rejected speculation can be taken back.
#pragma once

#include "kernels/nsa.h"
#include "nn/attention/attention.h"
#include "nn/attention/attention_options.h"
#include "nn/attention/cache_rows.h"

namespace hadal::nn {

class NsaGqaCache : public AttentionCache {
 public:
  NsaGqaCache(std::int64_t max_tokens, const AttentionOptions& o)
      : k(max_tokens, o.num_kv_heads * o.head_dim, o.storage()),
        v(max_tokens, o.num_kv_heads * o.v_head_dim, o.storage()),
        k_pooled(entries(max_tokens, *o.nsa), o.num_kv_heads * o.head_dim, o.storage()),
        v_pooled(entries(max_tokens, *o.nsa), o.num_kv_heads * o.v_head_dim, o.storage()),
        k_raw(o.nsa->block_length - 1, o.num_kv_heads * o.head_dim, o.storage()),
        v_raw(o.nsa->block_length - 1, o.num_kv_heads * o.v_head_dim, o.storage()),
        k_window(o.nsa->window - 1, o.num_kv_heads * o.head_dim, o.storage()),
        v_window(o.nsa->window - 1, o.num_kv_heads * o.v_head_dim, o.storage()),
        nsa_(*o.nsa) {}

  std::int64_t length() const override { return k.length(); }
  void truncate(std::int64_t length) override {
    HADAL_CHECK(length >= 0 && length <= k.length(), "{} of {} tokens", length, k.length());
    for (CacheTail* tail : {&k_raw, &v_raw, &k_window, &v_window}) tail->truncate(length);
    for (CacheRows* rows : {&k, &v}) rows->truncate(length);
    for (CacheRows* rows : {&k_pooled, &v_pooled}) rows->truncate(entries(length, nsa_));
  }
  double bytes_per_token() const override {
    double bytes = 0;
    for (const CacheRows* rows : {&k, &v, &k_pooled, &v_pooled}) bytes += rows->bytes();
    for (const CacheTail* tail : {&k_raw, &v_raw, &k_window, &v_window}) bytes += tail->bytes();
    return length() == 0 ? 0.0 : bytes / static_cast<double>(length());
  }

  CacheRows k, v;                ///< selected branch, k rotated
  CacheRows k_pooled, v_pooled;  ///< compressed entries, k rotated
  CacheTail k_raw, v_raw;        ///< compressed branch, not rotated
  CacheTail k_window, v_window;  ///< k rotated

 private:
  static std::int64_t entries(std::int64_t tokens, const NsaOptions& nsa) {
    return kernels::num_compressed(tokens, nsa.block_length, nsa.block_stride);
  }

  NsaOptions nsa_;
};

}  // namespace hadal::nn
