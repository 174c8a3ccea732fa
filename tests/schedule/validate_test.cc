// The validator can say no: every kind of damage to a good plan is found, with a reason that names it.
#include "schedule/validate.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <string>

#include "schedule/kinds.h"
#include "schedule/make_plan.h"

namespace hadal::schedule {
namespace {

Request request_of(Kind kind) { return {kind, 4, 8, kind == Kind::kInterleaved ? 2 : 1}; }

/// Numbers of the actions of `list` that satisfy the predicate.
std::vector<std::size_t> find_all(const ActionList& list, const std::function<bool(const Action&)>& predicate) {
  std::vector<std::size_t> found;
  for (std::size_t i = 0; i < list.size(); ++i) {
    if (predicate(list[i])) found.push_back(i);
  }
  return found;
}

/// Damages each place that `predicate` finds, one at a time; all must be refused.
void expect_refused(const std::function<bool(const Action&)>& predicate,
                    const std::function<void(ActionList&, std::size_t)>& damage) {
  int tried = 0;
  for (const KindRow& row : kinds()) {
    const Plan good = make_plan(request_of(row.kind));
    for (std::size_t rank = 0; rank < good.ranks.size(); ++rank) {
      for (const std::size_t i : find_all(good.ranks[rank], predicate)) {
        Plan bad = good;
        damage(bad.ranks[rank], i);
        const Verdict verdict = validate(bad);
        EXPECT_FALSE(verdict.ok()) << row.name << " rank " << rank << ": " << describe(good.ranks[rank][i]);
        EXPECT_TRUE(verdict.peak_activations.empty());
        ++tried;
      }
    }
  }
  EXPECT_GT(tried, 10);
}

const auto kAny = [](const Action&) { return true; };

TEST(Validate, a_missing_action) {
  expect_refused(kAny, [](ActionList& list, std::size_t i) { list.erase(list.begin() + static_cast<std::ptrdiff_t>(i)); });
}

TEST(Validate, a_repeated_action) {
  expect_refused(kAny, [](ActionList& list, std::size_t i) { list.push_back(list[i]); });
}

TEST(Validate, another_micro_batch) {
  expect_refused(kAny, [](ActionList& list, std::size_t i) { list[i].work.micro_batch ^= 1; });
  expect_refused([](const Action& action) { return action.op == Op::kForwardBackward; },
                 [](ActionList& list, std::size_t i) { list[i].backward.micro_batch ^= 1; });
}

TEST(Validate, swapped_micro_batches) {
  // two computations of the same kind and slot exchange their micro-batches
  expect_refused([](const Action& action) { return action.op == Op::kForward; },
                 [](ActionList& list, std::size_t i) {
                   for (std::size_t j = 0; j < list.size(); ++j) {
                     if (j == i || !runs_forward(list[j].op) || list[j].work.slot != list[i].work.slot) continue;
                     std::swap(list[i].work.micro_batch, list[j].work.micro_batch);
                     return;
                   }
                 });
}

TEST(Validate, swapped_transfers_on_one_end) {
  int tried = 0;
  for (const KindRow& row : kinds()) {
    const Plan good = make_plan(request_of(row.kind));
    for (std::size_t rank = 0; rank < good.ranks.size(); ++rank) {
      for (int peer = 0; peer < 4; ++peer) {
        // posting receives in another order hurts nobody but a transport without tags: still refused
        const auto receives =
            find_all(good.ranks[rank], [&](const Action& action) { return action.op == Op::kReceive && action.peer == peer; });
        for (std::size_t k = 0; k + 1 < receives.size(); ++k) {
          Plan bad = good;
          std::swap(bad.ranks[rank][receives[k]], bad.ranks[rank][receives[k + 1]]);
          EXPECT_FALSE(validate(bad).ok()) << row.name << " rank " << rank << " transfer " << k;
          ++tried;
        }
      }
    }
  }
  EXPECT_GT(tried, 50);
}

TEST(Validate, a_transfer_to_the_wrong_rank) {
  expect_refused([](const Action& action) { return is_transfer(action.op); },
                 [](ActionList& list, std::size_t i) { list[i].peer = (list[i].peer + 1) % 4; });
}

TEST(Validate, a_receive_after_its_use) {
  expect_refused([](const Action& action) { return action.op == Op::kReceive; },
                 [](ActionList& list, std::size_t i) {
                   std::rotate(list.begin() + static_cast<std::ptrdiff_t>(i), list.begin() + static_cast<std::ptrdiff_t>(i) + 1,
                               list.end());
                 });
}

TEST(Validate, a_release_before_its_send) {
  expect_refused([](const Action& action) { return action.op == Op::kRelease; },
                 [](ActionList& list, std::size_t i) {
                   std::rotate(list.begin(), list.begin() + static_cast<std::ptrdiff_t>(i),
                               list.begin() + static_cast<std::ptrdiff_t>(i) + 1);
                 });
}

TEST(Validate, weights_before_inputs) {
  expect_refused([](const Action& action) { return action.op == Op::kBackwardWeight; },
                 [](ActionList& list, std::size_t i) {
                   const Action weight = list[i];
                   const auto input = std::ranges::find_if(
                       list, [&](const Action& action) { return action.op == Op::kBackwardInput && action.work == weight.work; });
                   std::rotate(input, list.begin() + static_cast<std::ptrdiff_t>(i),
                               list.begin() + static_cast<std::ptrdiff_t>(i) + 1);
                 });
}

TEST(Validate, the_wrong_stage) {
  expect_refused(kAny, [](ActionList& list, std::size_t i) { list[i].work.stage += 1; });
}

/// Two ranks that each wait for what the other sends later: right in every list, and for ever together.
TEST(Validate, a_deadlock_is_named) {
  Plan circle{Kind::kInterleaved, true, Placement(Arrangement::kSequential, 2, 2, 1), {}};
  circle.ranks = {{{Op::kReceive, {1, 2, 0}, {}, Payload::kActivation, 1},
                   {Op::kForward, {1, 2, 0}},
                   {Op::kSend, {1, 2, 0}, {}, Payload::kActivation, 1},
                   {Op::kForward, {0, 0, 0}},
                   {Op::kSend, {0, 0, 0}, {}, Payload::kActivation, 1},
                   {Op::kRelease, {1, 2, 0}, {}, Payload::kActivation, 1},
                   {Op::kRelease, {0, 0, 0}, {}, Payload::kActivation, 1}},
                  {{Op::kReceive, {1, 3, 0}, {}, Payload::kActivation, 0},
                   {Op::kReceive, {0, 1, 0}, {}, Payload::kActivation, 0},
                   {Op::kForward, {0, 1, 0}},
                   {Op::kSend, {0, 1, 0}, {}, Payload::kActivation, 0},
                   {Op::kForward, {1, 3, 0}},
                   {Op::kRelease, {0, 1, 0}, {}, Payload::kActivation, 0}}};
  EXPECT_EQ(
      validate(circle).reason,
      "the ranks wait for each other: rank 0 at F0 on stage 2 for the activation of micro-batch 0 for stage 2, rank 1 at F0 on "
      "stage 1 for the activation of micro-batch 0 for stage 1");
}

TEST(Validate, reasons_name_rank_and_action) {
  Plan plan = make_plan({Kind::kZeroBubbleH1, 2, 4});
  std::erase_if(plan.ranks[1], [](const Action& action) { return action == Action{Op::kBackwardWeight, {0, 1, 3}}; });
  EXPECT_EQ(validate(plan).reason, "rank 1: W3 on stage 1 is missing");

  plan = make_plan({Kind::kZeroBubbleH1, 2, 4});
  std::erase_if(plan.ranks[0], [](const Action& action) {
    return is_transfer(action.op) && action.work.micro_batch == 2 && action.payload == Payload::kActivation;
  });
  EXPECT_EQ(validate(plan).reason, "rank 0: the activation of micro-batch 2 for stage 1 is never sent to rank 1");

  plan = make_forward_plan({Kind::kOneFOneB, 2, 2});
  plan.ranks[0].push_back({Op::kBackward, {0, 0, 0}});
  EXPECT_EQ(validate(plan).reason, "rank 0: B0 on stage 0: the plan is forward only");
}

}  // namespace
}  // namespace hadal::schedule
