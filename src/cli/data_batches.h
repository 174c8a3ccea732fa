// hadal data batches: the exact global batches that training will see, as tensors.
#pragma once

#include <cstdint>
#include <string>

#include "config/config.h"

namespace hadal::cli {

struct BatchesFlags {
  std::int64_t steps = 0;
  std::int64_t first_step = 0;  ///< 0: the first of a run
  std::string out;              ///< safetensors file
};

/// Writes tokens, targets, positions, document_ids I32 and loss_mask U8, all [N, B, S]: steps first_step .. first_step + N - 1.
/// UserError when the config's batch grows (its shape would change), or N * B * S is beyond memory's reason.
void write_batches(const Config& config, const BatchesFlags& flags);

}  // namespace hadal::cli
