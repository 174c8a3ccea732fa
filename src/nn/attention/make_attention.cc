#include "nn/attention/make_attention.h"

#include <utility>

#include "core/error.h"
#include "nn/attention/gqa_attention.h"
#include "nn/attention/mla_attention.h"
#include "nn/attention/nsa_gqa_attention.h"
#include "nn/attention/nsa_mla_attention.h"

namespace hadal::nn {
namespace {

void require_positive(const char* name, std::int64_t value) {
  if (value < 1) throw UserError("attention: {} is {}; it must be at least 1", name, value);
}

void require_divides(const char* divisor_name, std::int64_t divisor, const char* name, std::int64_t value) {
  if (value % divisor != 0) throw UserError("attention: {} {} does not divide {} {}", divisor_name, divisor, name, value);
}

void validate_nsa(const AttentionOptions& o) {
  const NsaOptions& nsa = *o.nsa;
  require_positive("nsa.block_length", nsa.block_length);
  require_positive("nsa.block_stride", nsa.block_stride);
  require_positive("nsa.num_selected", nsa.num_selected);
  require_positive("nsa.window", nsa.window);
  require_divides("nsa.block_stride", nsa.block_stride, "nsa.block_length", nsa.block_length);
  require_divides("nsa.block_stride", nsa.block_stride, "nsa.select_block", nsa.select_block);
  if (nsa.select_block < nsa.block_length) {
    throw UserError("attention: nsa.select_block {} is shorter than nsa.block_length {}", nsa.select_block, nsa.block_length);
  }
  if (o.kind == AttentionOptions::Kind::kMla) {
    require_positive("nsa.num_select_groups", nsa.num_select_groups);
    require_divides("nsa.num_select_groups", nsa.num_select_groups, "num_heads", o.num_heads);
  }
}

// Every rank holds whole heads, with whole key/value groups; a selection group lies on one rank or on a whole number of them.
void validate_heads(const AttentionOptions& o) {
  const auto require_share = [&](const char* name, std::int64_t value) {
    if (value % o.heads.count != 0) {
      throw UserError("attention: {} {} in {} equal shares: tensor parallelism takes a divisor of {}", name, value, o.heads.count,
                      name);
    }
  };
  require_share("num_heads", o.num_heads);
  if (o.kind == AttentionOptions::Kind::kGqa) {
    require_share("num_kv_heads", o.num_kv_heads);
  } else if (o.nsa && o.nsa->num_select_groups % o.heads.count != 0 && o.heads.count % o.nsa->num_select_groups != 0) {
    throw UserError("attention: nsa.num_select_groups {} over tensor parallelism {}: one must divide the other",
                    o.nsa->num_select_groups, o.heads.count);
  }
}

void validate(const AttentionOptions& o) {
  require_positive("hidden_size", o.hidden_size);
  require_positive("num_heads", o.num_heads);
  require_positive("v_head_dim", o.v_head_dim);
  require_positive("max_positions", o.max_positions);
  if (o.kind == AttentionOptions::Kind::kMla) {
    require_positive("kv_lora_rank", o.kv_lora_rank);
    require_positive("qk_nope_head_dim", o.qk_nope_head_dim);
    require_positive("qk_rope_head_dim", o.qk_rope_head_dim);
  } else {
    require_positive("num_kv_heads", o.num_kv_heads);
    require_positive("head_dim", o.head_dim);
    require_divides("num_kv_heads", o.num_kv_heads, "num_heads", o.num_heads);
  }
  if (o.rope_width() % 2 != 0)
    throw UserError("attention: the rotated width {} is odd; channels rotate in pairs", o.rope_width());
  if (o.nsa) validate_nsa(o);
  validate_heads(o);
}

}  // namespace

std::shared_ptr<const RopeTable> make_rope_table(const AttentionOptions& options) {
  validate(options);
  return std::make_shared<const RopeTable>(options.max_positions, options.rope_width(), options.rope, options.storage());
}

std::unique_ptr<Attention> make_attention(const AttentionOptions& options, const std::string& prefix,
                                          std::shared_ptr<const RopeTable> rope,
                                          std::shared_ptr<const SelectionSum> selection_sum) {
  validate(options);
  HADAL_CHECK(options.ranks_per_select_group() == 1 || selection_sum != nullptr,
              "{}: selection groups over {} ranks and nothing that sums their importance", prefix,
              options.ranks_per_select_group());
  HADAL_CHECK(rope != nullptr && rope->width() == options.rope_width(), "{}: rotation table", prefix);
  if (options.kind == AttentionOptions::Kind::kMla) {
    if (options.nsa) return std::make_unique<NsaMlaAttention>(options, prefix, std::move(rope), std::move(selection_sum));
    return std::make_unique<MlaAttention>(options, prefix, std::move(rope));
  }
  if (options.nsa) return std::make_unique<NsaGqaAttention>(options, prefix, std::move(rope));
  return std::make_unique<GqaAttention>(options, prefix, std::move(rope));
}

}  // namespace hadal::nn
