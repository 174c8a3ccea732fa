// What the mirrors of the attention layers share. Names and shapes as in nn/attention.
#pragma once

#include "plan/kernel_scratch.h"
#include "plan/layer_memory.h"

namespace hadal::plan {

/// Sizes of a layer on this rank, with the heads that it holds.
struct AttentionShape {
  explicit AttentionShape(const RankShape& rank);

  std::int64_t tokens;  ///< T: rows of queries
  std::int64_t whole;   ///< B S: rows of whole sequences
  std::int64_t causal;  ///< rows of keys up to the last token here
  std::int64_t d, heads, groups;
  bool shards;  ///< context parallelism
  const AttentionSection& a;
  AttentionSizes spans;  ///< one call of dense attention
  std::int64_t all_entries = 0,
               causal_entries = 0;  ///< compressed entries of whole sequences, and of those the last token here sees
  std::int64_t entries = 0;         ///< that this rank makes

  std::int64_t whole_rows() const { return shards ? whole : tokens; }
  std::int64_t query_width() const { return heads * spans.width; }
  std::int64_t value_width() const { return heads * a.v_head_dim; }
  std::int64_t up_width() const { return heads * (a.qk_nope_head_dim + a.v_head_dim); }  ///< MLA
  std::int64_t key_width() const { return groups * a.head_dim; }                         ///< GQA
  std::int64_t kv_value_width() const { return groups * a.v_head_dim; }                  ///< GQA
};

/// nn::MlaProjections::State.
struct LatentMemory {
  Held q_a, q_a_rms, c_q, q, kv_a, kv_a_rms, c;
  Held d_q, d_kv_a, d_c, d_q_a;

  void forward(Tape& tape, const AttentionShape& s);
  void backward_input(Tape& tape, const AttentionShape& s);
  void backward_weight(Tape& tape, const AttentionShape& s);
};

LayerMemoryPtr nsa_mla_memory(const RankShape& shape);
LayerMemoryPtr nsa_gqa_memory(const RankShape& shape);

}  // namespace hadal::plan
