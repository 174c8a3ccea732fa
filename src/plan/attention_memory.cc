// The mirrors of dense attention, nn/attention/mla_attention.cc and gqa_attention.cc, and what they share with the sparse ones.
#include "plan/attention_memory.h"

#include "kernels/nsa.h"
#include "plan/kernel_scratch.h"

namespace hadal::plan {

AttentionShape::AttentionShape(const RankShape& rank)
    : tokens(rank.tokens),
      whole(rank.batch * rank.whole_seq),
      causal(rank.batch * rank.last_position),
      d(rank.model.hidden_size),
      heads(rank.model.attention.num_heads / rank.tp),
      groups(rank.model.attention.num_kv_heads / rank.tp),
      shards(rank.cp > 1),
      a(rank.model.attention) {
  spans = {.batch = shards ? 1 : rank.batch,
           .queries = shards ? rank.seq / 2 : rank.seq,
           .keys = rank.last_position,
           .heads = heads,
           .key_heads = a.kind == AttentionKind::kMla ? heads : groups,
           .width = a.kind == AttentionKind::kMla ? a.qk_nope_head_dim + a.qk_rope_head_dim : a.head_dim,
           .value = a.v_head_dim,
           .shared = a.kind == AttentionKind::kMla ? a.qk_rope_head_dim : 0};
  spans.query_start = spans.keys - spans.queries;
  const auto entries_of = [&](std::int64_t length) {
    return kernels::num_compressed(length, a.nsa.block_length, a.nsa.block_stride);
  };
  all_entries = rank.batch * entries_of(rank.whole_seq);
  causal_entries = rank.batch * entries_of(rank.last_position);
  entries = shards ? all_entries / rank.cp : all_entries;
}

void LatentMemory::forward(Tape& tape, const AttentionShape& s) {
  if (s.a.q_lora_rank > 0) {
    q_a = tape.take(s.tokens * s.a.q_lora_rank);
    gemm_scratch(tape, Product::kForward, s.tokens, s.a.q_lora_rank, s.d);
    q_a_rms = tape.take_sums(s.tokens);
    c_q = tape.take(s.tokens * s.a.q_lora_rank);
  }
  q = tape.take(s.tokens * s.query_width());
  gemm_scratch(tape, Product::kForward, s.tokens, s.query_width(), s.a.q_lora_rank > 0 ? s.a.q_lora_rank : s.d);
  kv_a = tape.take(s.tokens * (s.a.kv_lora_rank + s.a.qk_rope_head_dim));
  c = tape.take(s.tokens * s.a.kv_lora_rank);
  gemm_scratch(tape, Product::kForward, s.tokens, s.a.kv_lora_rank + s.a.qk_rope_head_dim, s.d);
  kv_a_rms = tape.take_sums(s.tokens);
}

void LatentMemory::backward_input(Tape& tape, const AttentionShape& s) {
  norm_scratch(tape, s.tokens, s.a.kv_lora_rank);
  if (s.a.q_lora_rank > 0) {
    const Held d_c_q = tape.take(s.tokens * s.a.q_lora_rank);
    gemm_scratch(tape, Product::kBackwardInput, s.tokens, s.a.q_lora_rank, s.query_width());
    d_q_a = tape.take(s.tokens * s.a.q_lora_rank);
    norm_scratch(tape, s.tokens, s.a.q_lora_rank);
  }
  gemm_scratch(tape, Product::kBackwardInput, s.tokens, s.d, s.a.q_lora_rank > 0 ? s.a.q_lora_rank : s.query_width());
  for (Held* done : {&q_a, &kv_a, &d_c}) done->reset();
}

void LatentMemory::backward_weight(Tape& tape, const AttentionShape& s) {
  gemm_scratch(tape, Product::kBackwardWeight, s.query_width(), s.a.q_lora_rank > 0 ? s.a.q_lora_rank : s.d, s.tokens);
  if (s.a.q_lora_rank > 0) gemm_scratch(tape, Product::kBackwardWeight, s.a.q_lora_rank, s.d, s.tokens);
  gemm_scratch(tape, Product::kBackwardWeight, s.a.kv_lora_rank + s.a.qk_rope_head_dim, s.d, s.tokens);
}

namespace {

class Mla final : public LayerMemory {
 public:
  explicit Mla(const RankShape& rank) : s_(rank) {}

  Held forward(Tape& tape, SavedMemoryPtr& saved) const override {
    auto m = std::make_unique<Saved>();
    m->latent.forward(tape, s_);
    if (s_.shards) {
      m->c = tape.take(s_.whole * s_.a.kv_lora_rank);
      m->k_rope = tape.take(s_.whole * s_.a.qk_rope_head_dim);
      tape.touch(s_.whole * latent_width());
    }
    m->o = tape.take(s_.tokens * s_.value_width());
    m->lse = tape.take_sums(s_.tokens * s_.heads);
    m->kv = tape.take(s_.causal * s_.up_width());
    gemm_scratch(tape, Product::kForward, s_.causal, s_.up_width(), s_.a.kv_lora_rank);
    attention_scratch(tape, s_.spans);
    if (s_.shards) m->kv.reset();
    Held y = tape.take(s_.tokens * s_.d);
    gemm_scratch(tape, Product::kForward, s_.tokens, s_.d, s_.value_width());
    saved = std::move(m);
    return y;
  }

  Held backward_input(Tape& tape, SavedMemory& saved) const override {
    auto& m = static_cast<Saved&>(saved);
    const Held d_o = tape.take(s_.tokens * s_.value_width());
    gemm_scratch(tape, Product::kBackwardInput, s_.tokens, s_.value_width(), s_.d);
    m.latent.d_q = tape.take(s_.tokens * s_.query_width());
    m.latent.d_kv_a = tape.take(s_.tokens * latent_width());
    m.latent.d_c = tape.take(s_.tokens * s_.a.kv_lora_rank);
    Held d_c_all, d_k_rope_all;
    if (s_.shards) {
      d_c_all = tape.take(s_.whole * s_.a.kv_lora_rank);
      d_k_rope_all = tape.take(s_.whole * s_.a.qk_rope_head_dim);
      m.kv = tape.take(s_.causal * s_.up_width());
      gemm_scratch(tape, Product::kForward, s_.causal, s_.up_width(), s_.a.kv_lora_rank);
    }
    m.d_kv = tape.take(s_.causal * s_.up_width());
    attention_backward_scratch(tape, s_.spans);
    for (Held* done : {&m.latent.q, &m.kv, &m.k_rope, &m.lse}) done->reset();
    gemm_scratch(tape, Product::kBackwardInput, s_.causal, s_.a.kv_lora_rank, s_.up_width());
    if (s_.shards) tape.touch(s_.whole * latent_width());
    Held d_x = tape.take(s_.tokens * s_.d);
    m.latent.backward_input(tape, s_);
    return d_x;
  }

  void backward_weight(Tape& tape, SavedMemory& saved) const override {
    gemm_scratch(tape, Product::kBackwardWeight, s_.d, s_.value_width(), s_.tokens);
    gemm_scratch(tape, Product::kBackwardWeight, s_.up_width(), s_.a.kv_lora_rank, s_.causal);
    static_cast<Saved&>(saved).latent.backward_weight(tape, s_);
  }

 private:
  struct Saved : SavedMemory {
    LatentMemory latent;
    Held c, k_rope, kv, o, lse, d_kv;
  };
  std::int64_t latent_width() const { return s_.a.kv_lora_rank + s_.a.qk_rope_head_dim; }
  AttentionShape s_;
};

class Gqa final : public LayerMemory {
 public:
  explicit Gqa(const RankShape& rank) : s_(rank) {}

  Held forward(Tape& tape, SavedMemoryPtr& saved) const override {
    auto m = std::make_unique<Saved>();
    m->q = tape.take(s_.tokens * s_.query_width());
    gemm_scratch(tape, Product::kForward, s_.tokens, s_.query_width(), s_.d);
    m->k = tape.take(s_.tokens * s_.key_width());
    m->v = tape.take(s_.tokens * s_.kv_value_width());
    if (s_.shards) {
      Held k = tape.take(s_.whole * s_.key_width()), v = tape.take(s_.whole * s_.kv_value_width());
      tape.touch(s_.whole * (s_.key_width() + s_.kv_value_width()));
      m->k = std::move(k);
      m->v = std::move(v);
    }
    m->o = tape.take(s_.tokens * s_.value_width());
    m->lse = tape.take_sums(s_.tokens * s_.heads);
    attention_scratch(tape, s_.spans);
    Held y = tape.take(s_.tokens * s_.d);
    gemm_scratch(tape, Product::kForward, s_.tokens, s_.d, s_.value_width());
    saved = std::move(m);
    return y;
  }

  Held backward_input(Tape& tape, SavedMemory& saved) const override {
    auto& m = static_cast<Saved&>(saved);
    const Held d_o = tape.take(s_.tokens * s_.value_width());
    gemm_scratch(tape, Product::kBackwardInput, s_.tokens, s_.value_width(), s_.d);
    m.d_q = tape.take(s_.tokens * s_.query_width());
    m.d_k = tape.take(s_.whole_rows() * s_.key_width());
    m.d_v = tape.take(s_.whole_rows() * s_.kv_value_width());
    attention_backward_scratch(tape, s_.spans);
    for (Held* done : {&m.q, &m.k, &m.v, &m.lse}) done->reset();
    if (s_.shards) {
      Held d_k = tape.take(s_.tokens * s_.key_width()), d_v = tape.take(s_.tokens * s_.kv_value_width());
      tape.touch(s_.whole * (s_.key_width() + s_.kv_value_width()));
      m.d_k = std::move(d_k);
      m.d_v = std::move(d_v);
    }
    Held d_x = tape.take(s_.tokens * s_.d);
    gemm_scratch(tape, Product::kBackwardInput, s_.tokens, s_.d, s_.query_width());
    return d_x;
  }

  void backward_weight(Tape& tape, SavedMemory&) const override {
    gemm_scratch(tape, Product::kBackwardWeight, s_.d, s_.value_width(), s_.tokens);
    gemm_scratch(tape, Product::kBackwardWeight, s_.query_width(), s_.d, s_.tokens);
  }

 private:
  struct Saved : SavedMemory {
    Held q, k, v, o, lse, d_q, d_k, d_v;
  };
  AttentionShape s_;
};

}  // namespace

LayerMemoryPtr attention_memory(const RankShape& shape, bool sparse) {
  const bool mla = shape.model.attention.kind == AttentionKind::kMla;
  if (sparse) return mla ? nsa_mla_memory(shape) : nsa_gqa_memory(shape);
  if (mla) return std::make_unique<Mla>(shape);
  return std::make_unique<Gqa>(shape);
}

}  // namespace hadal::plan
