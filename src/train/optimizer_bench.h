// What ZeRO-1 costs or saves: everything of a step between the last backward and the next forward, with the optimizer shared out
// over the ranks and with all of it on every rank.
#pragma once

#include "comm/communicator.h"
#include "config/config.h"

namespace hadal::train {

struct OptimizerBench {
  double sharded_s = 0;  ///< reduce-scatter, norm, update of the own share, all-gather
  double whole_s = 0;    ///< all-reduce, norm, update of everything
};

/// Medians over some updates of this config's model, gradients made up. Collective.
OptimizerBench bench_optimizer(const Config& config, comm::Communicator& world);

}  // namespace hadal::train
