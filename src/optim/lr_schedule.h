// Learning rate of a step: linear warm-up from 0, then constant, cosine, step or warm-up-stable-decay.
#pragma once

#include <cstdint>
#include <vector>

#include "config/config.h"

namespace hadal::optim {

/// Rate of optimizer step `step` (0-based) of `num_steps`. Warm-up gives step s the rate lr (s+1) / warmup_steps.
/// cosine: min + (lr - min) (1 + cos(pi x)) / 2, x from 0 at the first step after warm-up to 1 at the end of the decay;
/// wsd: lr until the last decay_steps, then linear to min; step: times `factor` for each milestone share that is reached.
double learning_rate(const OptimSection& optim, std::int64_t step, std::int64_t num_steps);

/// The value in force at `tokens`: `initial`, or that of the last entry whose tokens are reached (entries ascend).
double scheduled_value(double initial, const std::vector<ScheduledValue>& later, std::int64_t tokens);

/// Sequences of the global batch when `tokens` have been trained: linear from ramp.start to full over ramp.tokens, rounded down to
/// a multiple of ramp.multiple (train.micro_batch when that is 0). The number of ranks has no say: any layout trains on the same global batches (design.md 3).
std::int64_t batch_size(const TrainSection& train, std::int64_t tokens);

}  // namespace hadal::optim
