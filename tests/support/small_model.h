// A model with everything in it (a dense layer, a MoE layer, two MTP modules, a balance loss) and micro-batches for it.
#pragma once

#include "model/stage.h"

namespace hadal::test {

/// f64, a few hundred parameters, odd widths.
model::ModelOptions small_model(AttentionKind kind, SparseKind sparse);

/// Random tokens of the model's vocabulary for every prediction; some do not count.
model::MicroBatch make_micro_batch(const model::ModelOptions& options, std::int64_t batch, std::int64_t seq, std::uint64_t seed = 3);

}  // namespace hadal::test
