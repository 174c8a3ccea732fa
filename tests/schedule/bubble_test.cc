// The executor on stages that sleep: what is measured is what the plan promises. Sleeping, since there may be fewer cores than
// ranks. Other programs make a sleeper wake up late by some constant time, so where one run is off, another with twice the
// durations decides.
#include <fmt/core.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <mutex>
#include <thread>

#include "comm/local/local_group.h"
#include "schedule/executor.h"
#include "schedule/kinds.h"
#include "schedule/make_plan.h"

namespace hadal::schedule {
namespace {

/// Takes the simulator's durations, in seconds, and returns tensors of one element.
class SleepingStages : public StageRunner {
 public:
  SleepingStages(const Plan& plan, int rank, const Durations& durations) : plan_(plan), rank_(rank), durations_(durations) {}

  Boundary boundary(int, int) override { return {Shape{1}, DType::kU8, kCpu}; }
  Tensor forward(int slot, int, Tensor) override {
    sleep(Op::kForward, slot);
    return y_of(slot);
  }
  Tensor backward_input(int slot, int, Tensor) override {
    sleep(Op::kBackwardInput, slot);
    return d_x_of(slot);
  }
  void backward_weight(int slot, int) override { sleep(Op::kBackwardWeight, slot); }
  PairOutput forward_backward(int forward_slot, int, Tensor, int backward_slot, int, Tensor) override {
    sleep(Op::kForwardBackward, forward_slot, backward_slot);
    return {y_of(forward_slot), d_x_of(backward_slot)};
  }

 private:
  int stage(int slot) const { return plan_.placement.stage_of(rank_, slot); }
  Tensor y_of(int slot) const { return plan_.placement.is_last(stage(slot)) ? Tensor() : Tensor::zeros(Shape{1}, DType::kU8); }
  Tensor d_x_of(int slot) const { return stage(slot) == 0 ? Tensor() : Tensor::zeros(Shape{1}, DType::kU8); }

  void sleep(Op op, int slot, int backward_slot = 0) const {
    const Action action{op, {slot, stage(slot), 0}, {backward_slot, stage(backward_slot), 0}};
    std::this_thread::sleep_for(std::chrono::duration<double>(duration_of(action, durations_)));
  }

  const Plan& plan_;
  int rank_;
  const Durations& durations_;
};

/// Seconds that all ranks together idle until the last one is done.
double measured_idle(const Plan& plan, const Durations& durations) {
  std::mutex mutex;
  double makespan = 0;
  double busy = 0;
  comm::run_local_group(plan.placement.num_ranks(), [&](comm::Communicator& pipeline) {
    SleepingStages stages(plan, pipeline.rank(), durations);
    pipeline.barrier();
    const Execution execution = execute(plan, pipeline, stages);
    const std::scoped_lock lock(mutex);
    makespan = std::max(makespan, execution.seconds);
    busy += execution.busy;
  });
  return makespan * plan.placement.num_ranks() - busy;
}

class Bubble : public testing::TestWithParam<Kind> {};

TEST_P(Bubble, is_that_of_the_plan) {
  const int chunks = GetParam() == Kind::kInterleaved ? 2 : 1;
  const Plan plan = make_plan({GetParam(), 4, 8, chunks});
  double unit = 0.02 / chunks;
  double error = 1;
  for (int attempt = 0; attempt < 4 && std::abs(error) > 0.05; ++attempt, unit *= 2) {
    const Durations durations{{{unit, 1.2 * unit, 0.8 * unit}}, 0.9, 0};
    const Simulation promised = simulate(plan, durations);
    const double expected = promised.makespan * promised.bubble_share() * plan.placement.num_ranks();
    error = measured_idle(plan, durations) / expected - 1;
    fmt::print("{:<12} idle {:.1f} ms of {:.1f} ms a rank, measured {:+.1f} %\n", name_of(GetParam()), expected / 4 * 1e3,
               promised.makespan * 1e3, error * 100);
  }
  EXPECT_LE(std::abs(error), 0.05);
}

INSTANTIATE_TEST_SUITE_P(kinds, Bubble,
                         testing::Values(Kind::kGpipe, Kind::kOneFOneB, Kind::kInterleaved, Kind::kZeroBubbleH1,
                                         Kind::kZeroBubbleH2, Kind::kDualPipeV, Kind::kDualPipe),
                         [](const auto& kind) { return "k_" + std::string(name_of(kind.param)); });

}  // namespace
}  // namespace hadal::schedule
