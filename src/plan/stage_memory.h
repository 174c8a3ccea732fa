// What one stage does to a rank's memory in each kind of work: the mirror of model/stage.cc, run once per kind.
#pragma once

#include "model/stage_layout.h"
#include "plan/rank_shape.h"

namespace hadal::plan {

/// Bytes. Peaks are above what lives when the work starts, its input (x or d_y) already there.
struct StageMemory {
  std::int64_t boundary = 0;            ///< x, y, d_x, d_y: [T', d]
  std::int64_t record = 0;              ///< from forward on: what backward needs, x included
  std::int64_t told = 0;                ///< from forward to the end of the step: losses of the tokens
  std::int64_t record_after_input = 0;  ///< from backward_input to backward_weight
  std::int64_t forward_peak = 0;
  std::int64_t backward_peak = 0;  ///< input and weight gradients in one go
  std::int64_t input_peak = 0;
  std::int64_t weight_peak = 0;
  bool first = false, last = false;  ///< of the pipeline: no x, no y
};

StageMemory stage_memory(const RankShape& shape, const model::StageContent& stage, bool last);

}  // namespace hadal::plan
