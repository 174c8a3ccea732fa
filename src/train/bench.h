// Whole training steps on synthetic tokens: what `hadal bench` measures.
#pragma once

#include <cstdint>

#include "comm/communicator.h"
#include "config/config.h"

namespace hadal::train {

struct BenchResult {
  double tokens_per_s = 0;   ///< median over the timed steps, all ranks
  double loss = 0;           ///< of the last step
  std::int64_t peak_bytes = 0;
  double waited_share = 0;   ///< of the timed steps' time, mean over ranks: communication that nothing hid
};

/// `forced`: perfectly even routing. Warm-up steps come first; the model is a fresh one.
BenchResult bench_steps(const Config& config, comm::Communicator& world, bool forced, std::int64_t warmup, std::int64_t steps);

}  // namespace hadal::train
