// Started under mpirun by ctest: a covering dozen of layouts over real ranks, every schedule among them, against one rank. Each process
// runs its rank; what they hold of each logical tensor meets on rank 0, which judges.
//
// With a word, `host` or `nccl`, all of it on CUDA in f32, and that is how device memory travels (tests/gpu/ranks_test.sh). Fewer
// layouts then: two ranks do not have as many.
#include <fmt/core.h>

#include <cstdio>
#include <optional>

#include <string_view>

#include "comm/world.h"
#include "core/device_backend.h"
#include "core/error.h"
#include "tests/verify/small_models.h"
#include "verify/layouts.h"
#include "verify/reference.h"
#include "verify/shrink.h"
#include "verify/synthetic_data.h"

namespace {

using namespace hadal;

/// Experts in bounded room so tight that steps are done again, a covering set, and deeper pipelines than it has.
std::vector<ParallelSection> layouts_of(const Config& small, int ranks) {
  std::vector<ParallelSection> layouts{verify::test::Split{.ep = ranks, .expert_capacity = 1}.section(),
                                       verify::test::Split{.tp = 2, .ep = ranks / 2, .etp = 2, .expert_capacity = 1.5}.section()};
  if (ranks % 4 == 0) layouts.push_back(verify::test::Split{.ep = ranks, .ranks_per_node = ranks / 2, .expert_capacity = 1}.section());
  const std::vector<ParallelSection> covering = verify::covering_layouts(small, ranks);
  layouts.insert(layouts.end(), covering.begin(), covering.end());
  if (ranks % 4 != 0) return layouts;
  for (const ScheduleKind schedule : {ScheduleKind::kOneFOneB, ScheduleKind::kZeroBubbleH2, ScheduleKind::kDualPipeV, ScheduleKind::kDualPipe}) {
    layouts.push_back(verify::test::Split{.tp = ranks / 4, .pp = 4, .schedule = schedule}.section());
  }
  return layouts;
}

/// What all processes have, on every one of them.
void meet(comm::Communicator& world, const verify::Trajectory& mine, verify::Trajectory& whole) {
  whole.steps = mine.steps;
  whole.loads = mine.loads;
  for (const std::string& bytes : world.all_gather(mine.gradients.bytes())) whole.gradients.merge(bytes);
  for (const std::string& bytes : world.all_gather(mine.parameters.bytes())) whole.parameters.merge(bytes);
}

int run(std::string_view transport) {
  auto world = comm::init_from_environment();
  Config small = verify::shrink(verify::test::everything(), world->size(), 8);
  const bool on_cuda = !transport.empty();
  if (on_cuda) {
    if (num_cuda_devices() == 0) {
      if (world->is_root()) std::puts("SKIPPED: no CUDA device here");
      return comm::finish(std::move(world), 77);
    }
    small.run.device = DeviceChoice::kCuda;
    small.precision.compute = ComputeType::kF32;
  }
  const auto sampler = verify::synthetic_sampler(small.model.vocab_size, small.data.sequence_length, static_cast<std::uint64_t>(small.run.seed));
  std::optional<verify::Reference> reference;
  if (world->is_root()) reference.emplace(small);
  const std::vector<ParallelSection> layouts = layouts_of(small, world->size());
  HADAL_CHECK(layouts.size() >= (on_cuda ? 6U : 12U), "{} layouts of {} ranks", layouts.size(), world->size());
  int failed = 0;
  for (const ParallelSection& layout : layouts) {
    Config config = small;
    config.parallel = layout;
    config.parallel.device_transport = transport == "nccl" ? DeviceTransportChoice::kNccl : DeviceTransportChoice::kHost;
    verify::Trajectory mine, whole;
    verify::RankRun(config, *world, *sampler).run(mine);
    meet(*world, mine, whole);
    if (!world->is_root()) continue;
    const verify::LayoutResult result = reference->judge(whole);
    fmt::print("{} {}: {:.1e} {}{}\n", result.passed ? "ok  " : "FAIL", verify::describe(layout, world->size()), result.worst_error,
               result.passed ? "" : result.tensor, result.problem);
    std::fflush(stdout);
    failed += result.passed ? 0 : 1;
  }
  return comm::finish(std::move(world), failed == 0 ? 0 : 1);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc > 1 ? argv[1] : "");
  } catch (const hadal::Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    hadal::comm::abort_all(static_cast<int>(error.code()));
  }
}
