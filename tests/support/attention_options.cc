#include "tests/support/attention_options.h"

namespace hadal::test {

nn::AttentionOptions small_mla() {
  nn::AttentionOptions o;
  o.kind = nn::AttentionOptions::Kind::kMla;
  o.hidden_size = 11;
  o.num_heads = 4;
  o.v_head_dim = 3;
  o.q_lora_rank = 6;
  o.kv_lora_rank = 7;
  o.qk_nope_head_dim = 5;
  o.qk_rope_head_dim = 4;
  o.rope = {.theta = 50.0,
            .yarn = {.factor = 4.0, .original_length = 16, .beta_fast = 2.0, .mscale = 1.0, .mscale_all_dim = 0.6}};
  o.max_positions = 256;
  o.dtype = DType::kF64;
  return o;
}

nn::AttentionOptions small_gqa() {
  nn::AttentionOptions o = small_mla();
  o.kind = nn::AttentionOptions::Kind::kGqa;
  o.num_kv_heads = 2;
  o.head_dim = 6;
  o.v_head_dim = 5;
  return o;
}

nn::NsaOptions small_nsa() {
  return {.block_length = 4,
          .block_stride = 2,
          .select_block = 4,
          .num_selected = 4,
          .window = 5,
          .tie_up = false,
          .num_select_groups = 1};
}

}  // namespace hadal::test
