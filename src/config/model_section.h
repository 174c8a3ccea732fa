// Keys of the section `model`: the shape of the model (spec/model.md 1-9). Form of these structs: config.h.
#pragma once

#include <cstdint>
#include <vector>

#include "config/field.h"

namespace hadal {

enum class AttentionKind { kMla, kGqa };
enum class SparseKind { kNone, kNsa };
enum class RouterScore { kSigmoid, kSoftmax };
enum class TopkMethod { kNoauxTc, kGreedy, kGroupLimitedGreedy };

/// YaRN context extension (spec/model.md 4); off while factor is 1.
struct YarnSection {
  double factor = 1.0;
  std::int64_t original_length = 4096;
  double beta_fast = 32.0;
  double beta_slow = 1.0;
  double mscale = 1.0;
  double mscale_all_dim = 1.0;

  template <class V>
  void visit(V& v) {
    v.key("factor", factor, between(1.0, 1e6), "context extension factor; 1 turns YaRN off");
    v.key("original_length", original_length, at_least(1), "context length of pre-training, tokens");
    v.key("beta_fast", beta_fast, between(0.0, 1e6), "rotations above which a frequency stays as it is");
    v.key("beta_slow", beta_slow, between(0.0, 1e6), "rotations below which a frequency is divided by factor");
    v.key("mscale", mscale, between(0.0, 100.0), "numerator of the cos/sin multiplier");
    v.key("mscale_all_dim", mscale_all_dim, between(0.0, 100.0), "temperature of the softmax scale");
  }
};

struct RopeSection {
  double theta = 10000.0;
  YarnSection yarn;

  template <class V>
  void visit(V& v) {
    v.key("theta", theta, between(1.0, 1e12), "base of the rotation frequencies");
    v.section("yarn", yarn, "context extension");
  }
};

/// Native sparse attention (spec/model.md 8 and 9).
struct NsaSection {
  std::int64_t block_length = 32;
  std::int64_t block_stride = 16;
  std::int64_t select_block = 64;
  std::int64_t num_selected = 16;
  std::int64_t window = 512;
  bool tie_up = false;
  std::int64_t num_select_groups = 1;

  template <class V>
  void visit(V& v) {
    v.key("block_length", block_length, between(1, 65536), "l: tokens in a compression block");
    v.key("block_stride", block_stride, between(1, 65536),
          "d: distance of compression blocks; divides block_length and select_block");
    v.key("select_block", select_block, between(1, 65536), "l': tokens in a selection block, at least block_length");
    v.key("num_selected", num_selected, between(1, 4096),
          "n: blocks that a query selects, the first and the two local ones included");
    v.key("window", window, between(1, 1 << 24), "w: tokens of the sliding window, the query's own included");
    v.key("tie_up", tie_up, "MLA: the three branches share one up-projection");
    v.key("num_select_groups", num_select_groups, between(1, 1024), "MLA: groups of heads that select together");
  }
};

struct AttentionSection {
  AttentionKind kind = AttentionKind::kMla;
  SparseKind sparse = SparseKind::kNone;
  std::vector<std::int64_t> dense_layers;
  std::int64_t num_heads = 4;
  std::int64_t q_lora_rank = 0;
  std::int64_t kv_lora_rank = 64;
  std::int64_t qk_nope_head_dim = 32;
  std::int64_t qk_rope_head_dim = 16;
  std::int64_t v_head_dim = 32;
  std::int64_t num_kv_heads = 4;
  std::int64_t head_dim = 64;
  NsaSection nsa;

  template <class V>
  void visit(V& v) {
    v.key("kind", kind, {{"mla", AttentionKind::kMla}, {"gqa", AttentionKind::kGqa}},
          "multi-head latent or grouped-query attention");
    v.key("sparse", sparse, {{"none", SparseKind::kNone}, {"nsa", SparseKind::kNsa}},
          "native sparse attention in every layer but dense_layers");
    v.numbers("dense_layers", dense_layers, at_least(0), "layers that stay dense when sparse is nsa");
    v.key("num_heads", num_heads, between(1, 4096), "query heads H");
    v.key("q_lora_rank", q_lora_rank, between(0, 1 << 20), "MLA: width of the query latent; 0 projects queries directly");
    v.key("kv_lora_rank", kv_lora_rank, between(1, 1 << 20), "MLA: width of the key/value latent");
    v.key("qk_nope_head_dim", qk_nope_head_dim, between(1, 4096), "MLA: key width per head without rotation");
    v.key("qk_rope_head_dim", qk_rope_head_dim, between(2, 4096), "MLA: rotated key width, even, shared by the heads");
    v.key("v_head_dim", v_head_dim, between(1, 4096), "value width per head");
    v.key("num_kv_heads", num_kv_heads, between(1, 4096), "GQA: key/value groups; divides num_heads");
    v.key("head_dim", head_dim, between(2, 4096), "GQA: query and key width per head, even");
    v.section("nsa", nsa, "native sparse attention");
  }
};

struct MoeSection {
  std::int64_t num_experts = 0;
  std::int64_t num_shared = 1;
  std::int64_t top_k = 2;
  std::int64_t intermediate_size = 128;
  std::int64_t first_dense_layers = 1;
  RouterScore score = RouterScore::kSigmoid;
  TopkMethod topk_method = TopkMethod::kNoauxTc;
  std::int64_t num_groups = 1;
  std::int64_t topk_groups = 1;
  bool normalize_topk = true;
  double routed_scaling = 1.0;

  template <class V>
  void visit(V& v) {
    v.key("num_experts", num_experts, between(0, 65536), "routed experts N_r; 0: every layer is dense");
    v.key("num_shared", num_shared, between(0, 64), "shared experts, stored as one wide SwiGLU");
    v.key("top_k", top_k, between(1, 64), "routed experts per token");
    v.key("intermediate_size", intermediate_size, between(1, 1 << 20), "width of one expert");
    v.key("first_dense_layers", first_dense_layers, between(0, 4096), "leading layers with a dense FFN");
    v.key("score", score, {{"sigmoid", RouterScore::kSigmoid}, {"softmax", RouterScore::kSoftmax}},
          "affinity: V3 sigmoid, V2 softmax");
    v.key("topk_method", topk_method,
          {{"noaux_tc", TopkMethod::kNoauxTc},
           {"greedy", TopkMethod::kGreedy},
           {"group_limited_greedy", TopkMethod::kGroupLimitedGreedy}},
          "V3: bias and sum of the two best per group; V2: plain, or best per group");
    v.key("num_groups", num_groups, between(1, 4096), "expert groups; divides num_experts");
    v.key("topk_groups", topk_groups, between(1, 4096), "groups a token may use");
    v.key("normalize_topk", normalize_topk, "divide the chosen scores by their sum");
    v.key("routed_scaling", routed_scaling, between(0.0, 1000.0), "factor on the routed experts' weights");
  }
};

struct MtpSection {
  std::int64_t depth = 0;

  template <class V>
  void visit(V& v) {
    v.key("depth", depth, between(0, 8), "multi-token prediction modules after the last layer");
  }
};

/// Shape of the model (spec/model.md 1-9).
struct ModelSection {
  std::int64_t vocab_size = 2048;
  std::int64_t hidden_size = 128;
  std::int64_t num_layers = 4;
  std::int64_t intermediate_size = 384;
  std::int64_t max_positions = 4096;
  double rms_norm_eps = 1e-6;
  double init_std = 0.02;
  AttentionSection attention;
  RopeSection rope;
  MoeSection moe;
  MtpSection mtp;

  template <class V>
  void visit(V& v) {
    v.key("vocab_size", vocab_size, between(2, 1 << 24), "rows of the embedding and of the head");
    v.key("hidden_size", hidden_size, between(1, 1 << 20), "width d of the residual stream");
    v.key("num_layers", num_layers, between(1, 4096), "transformer blocks, MTP modules apart");
    v.key("intermediate_size", intermediate_size, between(1, 1 << 22), "width of a dense FFN");
    v.key("max_positions", max_positions, at_least(1), "longest context, tokens");
    v.key("rms_norm_eps", rms_norm_eps, between(0.0, 1.0), "added to the mean square; engines expect 1e-6");
    v.key("init_std", init_std, between(0.0, 10.0), "standard deviation of initial matrices (V3: 0.006)");
    v.section("attention", attention, "attention of every layer");
    v.section("rope", rope, "rotary positions, interleaved");
    v.section("moe", moe, "mixture of experts");
    v.section("mtp", mtp, "multi-token prediction");
  }
};

}  // namespace hadal
