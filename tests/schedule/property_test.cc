// Random layouts, fixed seed: each is refused with a reason, or proved, simulated within its bounds and, where it is small, run
// to the end on threads with values checked.
#include <fmt/core.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <random>

#include "core/error.h"
#include "schedule/kinds.h"
#include "schedule/make_plan.h"
#include "schedule/simulate.h"
#include "schedule/validate.h"
#include "tests/schedule/fake_stage.h"

namespace hadal::schedule {
namespace {

class Random {
 public:
  int between(int low, int high) { return std::uniform_int_distribution<int>(low, high)(engine_); }
  double time() { return std::uniform_real_distribution<double>(0.2, 3.0)(engine_); }

 private:
  std::mt19937 engine_{4};
};

/// The rules in the words of the papers, apart from the code that refuses.
bool is_possible(const Request& r) {
  if (r.ranks < 1 || r.micro_batches < 1 || r.chunks < 1) return false;
  switch (r.kind) {
    case Kind::kInterleaved:
      return r.chunks >= 2 && r.micro_batches % r.ranks == 0;
    case Kind::kDualPipeV:
      return r.chunks <= 2 && r.micro_batches >= 2 * r.ranks;
    case Kind::kDualPipe:
      return r.chunks <= 2 && r.ranks % 2 == 0 && r.micro_batches % 2 == 0 && r.micro_batches >= 2 * r.ranks;
    default:
      return r.chunks == 1;
  }
}

Request random_request(Random& random) {
  Request request;
  request.kind = kinds()[static_cast<std::size_t>(random.between(0, static_cast<int>(kinds().size()) - 1))].kind;
  request.ranks = random.between(0, 19) == 0 ? random.between(0, 16) : random.between(1, 6);
  request.micro_batches = random.between(0, 24);
  // half of them where the rules like it
  if (random.between(0, 1) == 0) request.micro_batches = 2 * std::max(request.ranks, 1) * random.between(1, 3);
  const bool more_chunks = request.kind == Kind::kInterleaved ? random.between(0, 9) > 0 : random.between(0, 9) == 0;
  request.chunks = more_chunks ? random.between(0, 4) : 1;
  return request;
}

Durations random_durations(Random& random, int num_stages) {
  Durations durations;
  durations.stages.clear();
  for (int stage = 0; stage < num_stages; ++stage) durations.stages.push_back({random.time(), random.time(), random.time()});
  durations.pair_factor = random.between(0, 1) == 0 ? 1 : 0.7;
  durations.transfer = random.between(0, 2) == 0 ? 0 : 0.3 * random.time();
  return durations;
}

/// What must hold for any schedule; "" or what does not.
std::string check_simulation(const Plan& plan, const Durations& durations) {
  const Simulation result = simulate(plan, durations);
  const Placement& placement = plan.placement;
  double down = 0;  // the first micro-batch alone
  for (const StageTimes& times : durations.stages) down += times.forward + (plan.forward_only ? 0 : times.input);
  if (durations.pair_factor == 1 && result.makespan < down - 1e-9) return "shorter than one micro-batch";
  for (int rank = 0; rank < placement.num_ranks(); ++rank) {
    const auto r = static_cast<std::size_t>(rank);
    double work = 0;
    double now = 0;
    for (std::size_t i = 0; i < plan.ranks[r].size(); ++i) {
      const Span span = result.spans[r][i];
      work += duration_of(plan.ranks[r][i], durations);
      if (span.start < now - 1e-9 || span.end < span.start) return fmt::format("rank {}: action {} overlaps", rank, i);
      now = span.end;
    }
    if (std::abs(work - result.busy[r]) > 1e-9) return fmt::format("rank {}: busy", rank);
    if (result.bubble(rank) < -1e-9) return fmt::format("rank {}: more work than time", rank);
    if (result.idle_inside[r] > result.bubble(rank) + 1e-9) return fmt::format("rank {}: idle", rank);
  }
  return "";
}

TEST(Property, ten_thousand_layouts) {
  constexpr int kLayouts = 12000;
  constexpr int kSmall = 160;  // stages times micro-batches that are run, not only simulated
  Random random;
  std::map<Kind, int> refused, proved, run;
  for (int layout = 0; layout < kLayouts; ++layout) {
    const Request request = random_request(random);
    const std::string name = fmt::format("{} on {} ranks, {} micro-batches, {} chunks", name_of(request.kind), request.ranks,
                                         request.micro_batches, request.chunks);
    const std::string reason = why_impossible(request);
    ASSERT_EQ(reason.empty(), is_possible(request)) << name << ": " << reason;
    if (!reason.empty()) {
      ASSERT_THROW(make_plan(request), UserError) << name;
      ++refused[request.kind];
      continue;
    }
    const bool forward_only = random.between(0, 7) == 0;
    const Plan plan = forward_only ? make_forward_plan(request) : make_plan(request);
    const Verdict verdict = validate(plan);
    ASSERT_EQ(verdict.reason, "") << name;
    ASSERT_EQ(check_simulation(plan, random_durations(random, plan.placement.num_stages())), "") << name;
    ++proved[request.kind];
    if (plan.placement.num_stages() * request.micro_batches <= kSmall && request.ranks <= 6) {
      ASSERT_EQ(test::run_and_compare(plan), "") << name;
      ++run[request.kind];
    }
  }
  for (const KindRow& row : kinds()) {
    fmt::print("{:<12} {:5} refused, {:5} proved, {:5} run\n", row.name, refused[row.kind], proved[row.kind], run[row.kind]);
    EXPECT_GT(refused[row.kind], 50) << row.name;
    EXPECT_GT(proved[row.kind], 300) << row.name;
    EXPECT_GT(run[row.kind], 100) << row.name;
  }
}

/// Damage that is drawn at random: the validator refuses it, or the plan still computes the right thing.
TEST(Property, what_the_validator_lets_through_is_right) {
  Random random;
  int refused = 0, passed = 0;
  for (int trial = 0; trial < 3000; ++trial) {
    Request request = random_request(random);
    request.ranks = std::clamp(request.ranks, 1, 4);
    request.micro_batches = std::clamp(request.micro_batches, 1, 8);
    if (!why_impossible(request).empty()) continue;
    Plan plan = make_plan(request);
    ActionList& list = plan.ranks[static_cast<std::size_t>(random.between(0, request.ranks - 1))];
    const int last = static_cast<int>(list.size()) - 1;
    const auto from = list.begin() + random.between(0, last);
    const auto to = list.begin() + random.between(0, last);
    // one action moves somewhere else, near or far
    const auto near = std::clamp(from + random.between(-2, 2), list.begin(), list.end() - 1);
    const auto target = random.between(0, 1) == 0 ? near : to;
    from < target ? std::rotate(from, from + 1, target + 1) : std::rotate(target, from, from + 1);
    if (!validate(plan).ok()) {
      ++refused;
      continue;
    }
    ++passed;
    if (passed <= 300) {
      ASSERT_EQ(test::run_and_compare(plan), "");
    }
  }
  fmt::print("{} refused, {} passed\n", refused, passed);
  EXPECT_GT(refused, 300);
  EXPECT_GT(passed, 100);
}

}  // namespace
}  // namespace hadal::schedule
