#include "optim/lr_schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace hadal::optim {

double learning_rate(const OptimSection& optim, std::int64_t step, std::int64_t num_steps) {
  const LrScheduleSection& s = optim.schedule;
  if (step < s.warmup_steps) return optim.lr * static_cast<double>(step + 1) / static_cast<double>(s.warmup_steps);
  const double floor = optim.lr * s.min_ratio;
  switch (s.kind) {
    case LrScheduleKind::kConstant:
      return optim.lr;
    case LrScheduleKind::kCosine: {
      const std::int64_t length = s.decay_steps > 0 ? s.decay_steps : std::max<std::int64_t>(num_steps - s.warmup_steps, 1);
      const double x = std::min(1.0, static_cast<double>(step - s.warmup_steps) / static_cast<double>(length));
      return floor + (optim.lr - floor) * 0.5 * (1.0 + std::cos(std::numbers::pi * x));
    }
    case LrScheduleKind::kStep: {
      double lr = optim.lr;
      for (const double milestone : s.milestones) {
        if (static_cast<double>(step) >= milestone * static_cast<double>(num_steps)) lr *= s.factor;
      }
      return lr;
    }
    case LrScheduleKind::kWsd: {
      const std::int64_t start = num_steps - s.decay_steps;
      if (step < start || s.decay_steps == 0) return optim.lr;
      return optim.lr - (optim.lr - floor) * static_cast<double>(step - start + 1) / static_cast<double>(s.decay_steps);
    }
  }
  return optim.lr;
}

double scheduled_value(double initial, const std::vector<ScheduledValue>& later, std::int64_t tokens) {
  double value = initial;
  for (const ScheduledValue& entry : later) {
    if (tokens >= entry.tokens) value = entry.value;
  }
  return value;
}

std::int64_t batch_size(const TrainSection& train, std::int64_t tokens) {
  const BatchRampSection& ramp = train.batch_ramp;
  if (ramp.start == 0 || ramp.tokens == 0 || tokens >= ramp.tokens) return train.global_batch;
  const double share = static_cast<double>(tokens) / static_cast<double>(ramp.tokens);
  const auto grown = static_cast<std::int64_t>(static_cast<double>(ramp.start) + share * static_cast<double>(train.global_batch - ramp.start));
  const std::int64_t multiple = ramp.multiple > 0 ? ramp.multiple : train.micro_batch;
  return std::clamp(grown / multiple * multiple, std::min(multiple, train.global_batch), train.global_batch);
}

}  // namespace hadal::optim
