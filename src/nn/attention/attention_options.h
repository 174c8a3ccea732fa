// Sizes and switches of an attention layer, as plain data (the model folder fills them from the config).
#pragma once

#include <cstdint>
#include <optional>

#include "core/storage.h"
#include "nn/rope_options.h"
#include "nn/shard.h"

namespace hadal::nn {

/// Native sparse attention (spec/model.md 8 and 9).
struct NsaOptions {
  std::int64_t block_length = 32;      ///< l
  std::int64_t block_stride = 16;      ///< d divides l and l'
  std::int64_t select_block = 64;      ///< l' >= l
  std::int64_t num_selected = 16;      ///< n, the first and the two local blocks included
  std::int64_t window = 512;           ///< w, the query's own token included
  bool tie_up = false;                 ///< MLA: one up-projection for the three branches
  std::int64_t num_select_groups = 1;  ///< MLA: groups of heads that select together; divides num_heads
};

/// The two forms of attention over latents (spec/model.md 3.2), equal by associativity: keys and values materialised per head, or
/// queries absorbed into the latent space. kAuto: in training keys and values per head, in decoding whichever takes fewer operations, a
/// function of the shapes alone.
enum class LatentMode { kAuto, kMha, kMqa };

struct AttentionOptions {
  enum class Kind { kMla, kGqa } kind = Kind::kMla;
  std::int64_t hidden_size = 0;
  std::int64_t num_heads = 0;
  std::int64_t v_head_dim = 0;
  // MLA
  std::int64_t q_lora_rank = 0;  ///< 0: queries are projected directly
  std::int64_t kv_lora_rank = 0;
  std::int64_t qk_nope_head_dim = 0;
  std::int64_t qk_rope_head_dim = 0;           ///< even
  LatentMode latent_mode = LatentMode::kAuto;  ///< of decoding, and of the selected branch in training
  // GQA
  std::int64_t num_kv_heads = 0;  ///< divides num_heads; each is a selection group of its own under NSA
  std::int64_t head_dim = 0;      ///< query and key width, even, all of it rotated

  std::optional<NsaOptions> nsa;  ///< set: sparse
  RopeOptions rope;
  std::int64_t max_positions = 0;  ///< rows of the rotation table
  Shard heads;                     ///< tensor parallelism: the share of the heads that a layer holds
  double rms_norm_eps = 1e-6;      ///< of the latent norms
  double init_std = 0.02;          ///< of matrices
  DType dtype = DType::kF32;
  Device device{};

  Storage storage() const { return {dtype, device}; }
  /// Channels that rotate.
  std::int64_t rope_width() const { return kind == Kind::kMla ? qk_rope_head_dim : head_dim; }
  /// Width of a query and a key, over which scores are scaled.
  std::int64_t qk_width() const { return kind == Kind::kMla ? qk_nope_head_dim + qk_rope_head_dim : head_dim; }
  /// Ranks whose heads select blocks together: more than one where a selection group has heads of several ranks.
  std::int64_t ranks_per_select_group() const {
    return nsa && kind == Kind::kMla && heads.count > nsa->num_select_groups ? heads.count / nsa->num_select_groups : 1;
  }
  /// The same layer with the heads of this share alone: every count is the rank's own.
  AttentionOptions own_heads() const {
    AttentionOptions own = *this;
    own.num_heads = heads.size(num_heads);
    if (kind == Kind::kGqa) own.num_kv_heads = heads.size(num_kv_heads);
    if (nsa && kind == Kind::kMla) own.nsa->num_select_groups = nsa->num_select_groups * ranks_per_select_group() / heads.count;
    own.heads = {};
    return own;
  }
};

}  // namespace hadal::nn
