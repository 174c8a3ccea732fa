// What each pipeline stage holds. The model is one chain of pieces, each taking and giving one [T, d] tensor:
//   embedding, layer 0 .. L-1, head (final norm, output head, main loss), MTP module 1 .. D
// and a stage is a run of consecutive pieces. A stage with MTP modules also holds embedding and head: copies, unless the rank has
// them anyway (spec/parallelism.md 6).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "config/config.h"

namespace hadal::model {

struct StageContent {
  bool embedding = false;
  std::int64_t first_layer = 0;
  std::int64_t num_layers = 0;
  bool head = false;
  std::int64_t first_mtp = 0;
  std::int64_t num_mtp = 0;

  bool first() const { return embedding; }
  bool needs_embedding() const { return embedding || num_mtp > 0; }
  bool needs_head() const { return head || num_mtp > 0; }
  /// "embedding, layers 0-3", "layers 56-60, head, mtp 1".
  std::string describe() const;
};

/// Everything in one stage.
StageContent whole_model(const ModelSection& model);

/// Stages that a pipeline rank holds under this schedule.
std::int64_t stages_per_rank(const ParallelSection& parallel);

/// `num_stages` stages in order: as written in parallel.stages, or spread so that the slowest stage takes the fewest operations.
/// UserError when what is written does not add up to the model, or when there are more stages than pieces.
std::vector<StageContent> stage_layout(const ModelSection& model, const ParallelSection& parallel, std::int64_t num_stages);

}  // namespace hadal::model
