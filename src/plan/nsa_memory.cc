// The mirrors of sparse attention, nn/attention/nsa_mla_*.cc and nsa_gqa_attention.cc.
#include <algorithm>
#include <array>

#include "plan/attention_memory.h"
#include "plan/kernel_scratch.h"

namespace hadal::plan {
namespace {

enum Branch : std::size_t { kCompressed, kSelected, kWindow };
constexpr std::array kBranches{kCompressed, kSelected, kWindow};

/// What the branches of both kinds have.
struct Branches : SavedMemory {
  Held gate, d_gate, mixed, blocks;
  std::array<Held, 3> o, lse;
};

class Sparse : public LayerMemory {
 protected:
  Sparse(const RankShape& rank, std::int64_t select_groups) : s_(rank), select_groups_(select_groups), selected_(s_.spans) {
    // A block of keys at a time, but sums of the gradients of all keys.
    blocks_of_sequence_ = (rank.last_position - 1) / s_.a.nsa.select_block + 1;
    compressed_ = s_.spans;
    compressed_.keys = s_.causal_entries / rank.batch;
    compressed_.block_length = s_.a.nsa.block_length;
    compressed_.block_stride = s_.a.nsa.block_stride;
    window_ = s_.spans;
    if (s_.shards) window_.keys = std::min(window_.keys, window_.queries + s_.a.nsa.window - 1);
    window_.query_start = window_.keys - window_.queries;
    window_.window = s_.a.nsa.window;
    shape_ = {.batch = selected_.batch,
              .tokens = selected_.queries,
              .keys = selected_.keys,
              .heads = selected_.heads,
              .key_heads = selected_.key_heads,
              .groups = select_groups_,
              .chosen = std::min(s_.a.nsa.num_selected, blocks_of_sequence_),
              .select_block = s_.a.nsa.select_block,
              .key_width = selected_.width - selected_.shared,
              .shared_width = selected_.shared,
              .value_width = selected_.value};
  }

  void take_outputs(Tape& tape, Branches& m) const {
    for (const Branch branch : kBranches) {
      m.o[branch] = tape.take(s_.tokens * s_.value_width());
      m.lse[branch] = tape.take_sums(s_.tokens * s_.heads);
    }
  }
  void select(Tape& tape, Branches& m) const {
    attention_scratch(tape, compressed_);
    m.blocks = tape.take(s_.tokens * select_groups_ * shape_.chosen, DType::kI32);
    select_scratch(tape, shape_.batch, shape_.tokens, select_groups_, blocks_of_sequence_);
  }
  Held mix(Tape& tape, Branches& m) const {
    {
      const Held logits = tape.take(s_.tokens * 3 * s_.heads);
      m.gate = tape.take_sums(s_.tokens * 3 * s_.heads);
      m.mixed = tape.take(s_.tokens * s_.value_width());
    }
    Held y = tape.take(s_.tokens * s_.d);
    gemm_scratch(tape, Product::kForward, s_.tokens, s_.d, s_.value_width());
    return y;
  }
  /// d_o of the branches.
  std::array<Held, 3> unmix(Tape& tape, Branches& m) const {
    const Held d_mixed = tape.take(s_.tokens * s_.value_width());
    gemm_scratch(tape, Product::kBackwardInput, s_.tokens, s_.value_width(), s_.d);
    m.d_gate = tape.take(s_.tokens * 3 * s_.heads);
    std::array<Held, 3> d_o;
    for (Held& branch : d_o) branch = tape.take(s_.tokens * s_.value_width());
    m.gate.reset();
    return d_o;
  }
  void free_branches(Branches& m) const {
    m.blocks.reset();
    for (const Branch branch : kBranches) {
      m.o[branch].reset();
      m.lse[branch].reset();
    }
  }
  /// Rows of logits of a pooling: blocks reach past the tokens that are here.
  std::int64_t pool_rows() const {
    return s_.shards ? s_.entries * s_.a.nsa.block_stride + 2 * (s_.a.nsa.block_length - s_.a.nsa.block_stride) : s_.tokens;
  }

  void pooling_backward(Tape& tape, std::int64_t heads, std::int64_t width) const {
    pooling_backward_scratch(tape, shape_.batch, pool_rows() / shape_.batch, heads, width, s_.a.nsa.block_length, s_.a.nsa.block_stride);
  }

  AttentionShape s_;
  std::int64_t select_groups_;
  std::int64_t blocks_of_sequence_ = 1;
  AttentionSizes compressed_, selected_, window_;
  kernels::SelectedShape shape_;  ///< of the selected branch
};

class NsaMla final : public Sparse {
 public:
  explicit NsaMla(const RankShape& rank)
      : Sparse(rank, std::max<std::int64_t>(1, rank.model.attention.nsa.num_select_groups / rank.tp)),
        rank_(s_.a.kv_lora_rank),
        rope_(s_.a.qk_rope_head_dim),
        window_rows_(s_.shards ? 2 * rank.batch * window_.keys : s_.tokens),
        window_shares_keys_(s_.a.nsa.tie_up) {}

  Held forward(Tape& tape, SavedMemoryPtr& saved) const override {
    auto m = std::make_unique<Saved>();
    m->latent.forward(tape, s_);
    if (s_.shards) {
      m->c_all = tape.take(s_.whole * rank_);
      m->r_all = tape.take(s_.whole * rope_);
      tape.touch(s_.whole * (rank_ + rope_));
    }
    m->k_rope = tape.take(s_.whole_rows() * rope_);
    compress(tape, *m);
    take_outputs(tape, *m);
    m->kv[kCompressed] = tape.take(s_.causal_entries * s_.up_width());
    gemm_scratch(tape, Product::kForward, s_.causal_entries, s_.up_width(), rank_);
    select(tape, *m);
    m->kv[kSelected] = tape.take(s_.causal * s_.up_width());
    gemm_scratch(tape, Product::kForward, s_.causal, s_.up_width(), rank_);
    selected_scratch(tape, shape_);
    if (!window_shares_keys_) m->kv[kWindow] = tape.take(window_rows_ * s_.up_width());
    attention_scratch(tape, window_);
    if (s_.shards) m->kv[kSelected].reset();
    Held y = mix(tape, *m);
    saved = std::move(m);
    return y;
  }

  Held backward_input(Tape& tape, SavedMemory& saved) const override {
    auto& m = static_cast<Saved&>(saved);
    LatentMemory& latent = m.latent;
    Held d_x = tape.take(s_.tokens * s_.d);
    const std::array<Held, 3> d_o = unmix(tape, m);
    if (s_.shards) {
      m.kv[kSelected] = tape.take(s_.causal * s_.up_width());
      gemm_scratch(tape, Product::kForward, s_.causal, s_.up_width(), rank_);
    }
    branches_backward(tape, m);
    latent.d_c = tape.take(s_.tokens * rank_);
    latent.d_kv_a = tape.take(s_.tokens * (rank_ + rope_));
    {
      Held d_c_all, d_r_all;
      if (s_.shards) {
        d_c_all = tape.take(s_.whole * rank_);
        d_r_all = tape.take(s_.whole * rope_);
      }
      compress_backward(tape, m);
      gemm_scratch(tape, Product::kBackwardInput, s_.causal, rank_, s_.up_width());
      if (s_.shards) tape.touch(s_.whole * (rank_ + rope_));
    }
    latent.backward_input(tape, s_);
    for (Held* done : {&m.k_rope, &m.r_all}) done->reset();
    for (const Branch branch : kBranches) {
      m.kv[branch].reset();
      m.d_k_rope[branch].reset();
    }
    free_branches(m);
    latent.q.reset();
    return d_x;
  }

  void backward_weight(Tape& tape, SavedMemory& saved) const override {
    gemm_scratch(tape, Product::kBackwardWeight, s_.d, s_.value_width(), s_.tokens);
    gemm_scratch(tape, Product::kBackwardWeight, s_.up_width(), rank_, s_.causal);
    static_cast<Saved&>(saved).latent.backward_weight(tape, s_);
  }

 private:
  struct Saved : Branches {
    LatentMemory latent;
    Held c_all, r_all, k_rope;
    Held pool_latent, pool_rope, d_pool_latent, d_pool_rope, pooled, pooled_rms, c_pooled, k_rope_pooled;
    std::array<Held, 3> kv, d_kv, d_k_rope;
  };

  void compress(Tape& tape, Saved& m) const {
    m.pooled = tape.take(s_.entries * rank_);
    m.pooled_rms = tape.take_sums(s_.entries);
    m.c_pooled = tape.take(s_.entries * rank_);
    m.k_rope_pooled = tape.take(s_.entries * rope_);
    m.pool_latent = tape.take(pool_rows() * rank_);
    m.pool_rope = tape.take(pool_rows() * rope_);
    if (!s_.shards) return;
    Held c = tape.take(s_.all_entries * rank_), k = tape.take(s_.all_entries * rope_);
    tape.touch(s_.all_entries * (rank_ + rope_));
    m.c_pooled = std::move(c);
    m.k_rope_pooled = std::move(k);
  }

  void branches_backward(Tape& tape, Saved& m) const {
    const auto gradient = [&](Branch branch, Held& d_q, std::int64_t key_rows, std::int64_t shared_rows) {
      d_q = tape.take(s_.tokens * s_.query_width());
      m.d_k_rope[branch] = tape.take(shared_rows * rope_);
      if (branch != kWindow || !window_shares_keys_) m.d_kv[branch] = tape.take(key_rows * s_.up_width());
    };
    gradient(kCompressed, m.latent.d_q, s_.causal_entries, s_.shards ? s_.all_entries : s_.entries);
    attention_backward_scratch(tape, compressed_);
    Held d_q;
    gradient(kSelected, d_q, s_.causal, s_.whole_rows());
    selected_backward_scratch(tape, selected_, shape_);
    gradient(kWindow, d_q, window_rows_, s_.whole_rows());
    attention_backward_scratch(tape, window_);
  }

  void compress_backward(Tape& tape, Saved& m) const {
    Held d_c_pooled = tape.take((s_.shards ? s_.all_entries : s_.entries) * rank_);
    if (s_.shards) {
      Held d_c = tape.take(s_.entries * rank_), d_k = tape.take(s_.entries * rope_);
      tape.touch(s_.all_entries * (rank_ + rope_));
      d_c_pooled = std::move(d_c);
      m.d_k_rope[kCompressed] = std::move(d_k);
    }
    const Held d_pooled = tape.take(s_.entries * rank_);
    m.d_pool_latent = tape.take(pool_rows() * rank_);
    pooling_backward(tape, 1, rank_);
    m.pool_latent.reset();
    m.d_pool_rope = tape.take(pool_rows() * rope_);
    pooling_backward(tape, 1, rope_);
    m.pool_rope.reset();
    for (Held* done : {&m.pooled, &m.pooled_rms, &m.k_rope_pooled}) done->reset();
  }

  std::int64_t rank_, rope_, window_rows_;
  bool window_shares_keys_;
};

class NsaGqa final : public Sparse {
 public:
  explicit NsaGqa(const RankShape& rank) : Sparse(rank, rank.model.attention.num_kv_heads / rank.tp) {}

  Held forward(Tape& tape, SavedMemoryPtr& saved) const override {
    auto m = std::make_unique<Saved>();
    m->q = tape.take(s_.tokens * s_.query_width());
    gemm_scratch(tape, Product::kForward, s_.tokens, s_.query_width(), s_.d);
    for (const Branch branch : kBranches) {
      m->k[branch] = tape.take(s_.tokens * s_.key_width());
      m->v[branch] = tape.take(s_.tokens * s_.kv_value_width());
    }
    take_outputs(tape, *m);
    if (s_.shards) exchange_all(tape, s_.whole, m->k, m->v);
    m->k_pooled = tape.take(s_.entries * s_.key_width());
    m->v_pooled = tape.take(s_.entries * s_.kv_value_width());
    m->phi_k = tape.take(pool_rows() * s_.key_width());
    m->phi_v = tape.take(pool_rows() * s_.kv_value_width());
    if (s_.shards) exchange_pooled(tape, s_.all_entries, m->k_pooled, m->v_pooled);
    select(tape, *m);
    selected_scratch(tape, shape_);
    attention_scratch(tape, window_);
    Held y = mix(tape, *m);
    saved = std::move(m);
    return y;
  }

  Held backward_input(Tape& tape, SavedMemory& saved) const override {
    auto& m = static_cast<Saved&>(saved);
    Held d_x = tape.take(s_.tokens * s_.d);
    const std::array<Held, 3> d_o = unmix(tape, m);
    const std::int64_t entries = s_.shards ? s_.all_entries : s_.entries;
    Held d_k_pooled = tape.take(entries * s_.key_width()), d_v_pooled = tape.take(entries * s_.kv_value_width());
    for (const Branch branch : kBranches) {
      m.d_k[branch] = tape.take(s_.whole_rows() * s_.key_width());
      m.d_v[branch] = tape.take(s_.whole_rows() * s_.kv_value_width());
    }
    std::array<Held, 3> d_q;
    const std::array sizes{compressed_, selected_, window_};
    for (const Branch branch : kBranches) {
      d_q[branch] = tape.take(s_.tokens * s_.query_width());
      branch == kSelected ? selected_backward_scratch(tape, selected_, shape_) : attention_backward_scratch(tape, sizes[branch]);
    }
    m.d_q = std::move(d_q[kCompressed]);
    if (s_.shards) exchange_pooled(tape, s_.entries, d_k_pooled, d_v_pooled);
    m.d_phi_k = tape.take(pool_rows() * s_.key_width());
    pooling_backward(tape, s_.groups, s_.a.head_dim);
    m.phi_k.reset();
    m.d_phi_v = tape.take(pool_rows() * s_.kv_value_width());
    pooling_backward(tape, s_.groups, s_.a.v_head_dim);
    m.phi_v.reset();
    if (s_.shards) exchange_all(tape, s_.tokens, m.d_k, m.d_v);
    gemm_scratch(tape, Product::kBackwardInput, s_.tokens, s_.d, s_.query_width());
    for (const Branch branch : {kSelected, kWindow}) {
      m.k[branch].reset();
      m.v[branch].reset();
    }
    free_branches(m);
    for (Held* done : {&m.q, &m.k_pooled, &m.v_pooled}) done->reset();
    return d_x;
  }

  void backward_weight(Tape& tape, SavedMemory&) const override {
    gemm_scratch(tape, Product::kBackwardWeight, s_.d, s_.value_width(), s_.tokens);
    gemm_scratch(tape, Product::kBackwardWeight, s_.query_width(), s_.d, s_.tokens);
  }

 private:
  struct Saved : Branches {
    Held q, k_pooled, v_pooled, phi_k, phi_v, d_phi_k, d_phi_v, d_q;
    std::array<Held, 3> k, v, d_k, d_v;
  };

  /// Every branch's keys and values become `rows` rows of another distribution, in one exchange.
  void exchange_all(Tape& tape, std::int64_t rows, std::array<Held, 3>& k, std::array<Held, 3>& v) const {
    std::array<Held, 3> new_k, new_v;
    for (const Branch branch : kBranches) {
      new_k[branch] = tape.take(rows * s_.key_width());
      new_v[branch] = tape.take(rows * s_.kv_value_width());
    }
    tape.touch(3 * s_.whole * (s_.key_width() + s_.kv_value_width()));
    k = std::move(new_k);
    v = std::move(new_v);
  }
  void exchange_pooled(Tape& tape, std::int64_t rows, Held& k, Held& v) const {
    Held new_k = tape.take(rows * s_.key_width()), new_v = tape.take(rows * s_.kv_value_width());
    tape.touch(s_.all_entries * (s_.key_width() + s_.kv_value_width()));
    k = std::move(new_k);
    v = std::move(new_v);
  }
};

}  // namespace

LayerMemoryPtr nsa_mla_memory(const RankShape& shape) { return std::make_unique<NsaMla>(shape); }
LayerMemoryPtr nsa_gqa_memory(const RankShape& shape) { return std::make_unique<NsaGqa>(shape); }

}  // namespace hadal::plan
