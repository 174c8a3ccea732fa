// Guards: the learning rate of every schedule at its corners, scheduled values, the batch ramp.
#include "optim/lr_schedule.h"

#include <gtest/gtest.h>

namespace hadal::optim {
namespace {

OptimSection section(LrScheduleKind kind) {
  OptimSection o;
  o.lr = 2.0;
  o.schedule.kind = kind;
  o.schedule.warmup_steps = 4;
  o.schedule.min_ratio = 0.1;
  return o;
}

TEST(LearningRate, WarmsUpLinearly) {
  const OptimSection o = section(LrScheduleKind::kConstant);
  EXPECT_DOUBLE_EQ(learning_rate(o, 0, 100), 0.5);
  EXPECT_DOUBLE_EQ(learning_rate(o, 3, 100), 2.0);
  EXPECT_DOUBLE_EQ(learning_rate(o, 99, 100), 2.0);
}

TEST(LearningRate, CosineEndsAtTheFloor) {
  OptimSection o = section(LrScheduleKind::kCosine);
  EXPECT_DOUBLE_EQ(learning_rate(o, 4, 104), 2.0);
  EXPECT_DOUBLE_EQ(learning_rate(o, 54, 104), 1.1);
  EXPECT_NEAR(learning_rate(o, 104, 104), 0.2, 1e-15);
  o.schedule.decay_steps = 50;
  EXPECT_NEAR(learning_rate(o, 80, 104), 0.2, 1e-15);
}

TEST(LearningRate, StepMultipliesAtMilestones) {
  const OptimSection o = section(LrScheduleKind::kStep);
  EXPECT_DOUBLE_EQ(learning_rate(o, 79, 100), 2.0);
  EXPECT_DOUBLE_EQ(learning_rate(o, 80, 100), 2.0 * 0.316);
  EXPECT_DOUBLE_EQ(learning_rate(o, 90, 100), 2.0 * 0.316 * 0.316);
}

TEST(LearningRate, WsdDecaysAtTheEnd) {
  OptimSection o = section(LrScheduleKind::kWsd);
  o.schedule.decay_steps = 10;
  EXPECT_DOUBLE_EQ(learning_rate(o, 89, 100), 2.0);
  EXPECT_DOUBLE_EQ(learning_rate(o, 94, 100), 2.0 - 1.8 * 0.5);
  EXPECT_NEAR(learning_rate(o, 99, 100), 0.2, 1e-15);
}

TEST(ScheduledValue, TakesTheLastEntryReached) {
  const std::vector<ScheduledValue> later{{100, 0.5}, {200, 0.0}};
  EXPECT_EQ(scheduled_value(1.0, later, 99), 1.0);
  EXPECT_EQ(scheduled_value(1.0, later, 100), 0.5);
  EXPECT_EQ(scheduled_value(1.0, later, 1000), 0.0);
}

TEST(BatchRamp, GrowsInWholeMicroBatches) {
  TrainSection t;
  t.global_batch = 32;
  t.micro_batch = 4;
  t.batch_ramp = {.start = 8, .tokens = 1000};
  EXPECT_EQ(batch_size(t, 0), 8);
  EXPECT_EQ(batch_size(t, 500), 20);
  EXPECT_EQ(batch_size(t, 999), 28);
  EXPECT_EQ(batch_size(t, 1000), 32);
}

}  // namespace
}  // namespace hadal::optim
