// Every schedule against the spec's own examples, and what is refused.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "core/error.h"
#include "schedule/kinds.h"
#include "schedule/make_plan.h"
#include "schedule/validate.h"

namespace hadal::schedule {
namespace {

/// A rank's computations in the notation of spec/parallelism.md 5.6: a, b for slots; numbers count within the slot.
std::string computations(const Plan& plan, int rank) {
  std::string text;
  const auto add = [&](const char* letter, const Work& work) {
    text += letter;
    text += static_cast<char>('a' + work.slot);
    text += std::to_string(work.micro_batch - plan.placement.first_micro_batch(work.slot));
  };
  for (const Action& action : plan.ranks[static_cast<std::size_t>(rank)]) {
    if (is_transfer(action.op)) continue;
    if (!text.empty()) text += ' ';
    switch (action.op) {
      case Op::kForward:
        add("F", action.work);
        break;
      case Op::kBackward:
        add("B", action.work);
        break;
      case Op::kBackwardInput:
        add("I", action.work);
        break;
      case Op::kBackwardWeight:
        add("W", action.work);
        break;
      default:
        add("F", action.work);
        add("&B", action.backward);
    }
  }
  return text;
}

TEST(Plan, dualpipe_is_the_example_of_the_spec) {
  const Plan plan = make_plan({Kind::kDualPipe, 4, 8});
  EXPECT_EQ(computations(plan, 0), "Fa0 Fa1 Fa2 Fb0 Ib0 Wb0 Fb1 Fa3&Bb1 Fb2&Ba0 Bb2 Fb3&Ba1 Bb3 Ia2 Wa2 Ia3 Wa3");
  EXPECT_EQ(computations(plan, 1), "Fa0 Fb0 Fa1 Fb1 Fa2 Bb0 Fb2&Ba0 Fa3&Bb1 Fb3&Ba1 Bb2 Ba2 Ib3 Ia3 Wb3 Wa3");
}

TEST(Plan, the_upper_half_of_dualpipe_mirrors_the_lower) {
  const Plan plan = make_plan({Kind::kDualPipe, 6, 14});
  for (int rank = 0; rank < 3; ++rank) {
    std::string mirrored = computations(plan, rank);
    for (char& c : mirrored) c = c == 'a' ? 'b' : c == 'b' ? 'a' : c;
    EXPECT_EQ(computations(plan, 5 - rank), mirrored);
  }
}

TEST(Plan, small_lists_by_hand) {
  EXPECT_EQ(computations(make_plan({Kind::kGpipe, 2, 2}), 0), "Fa0 Fa1 Ba0 Ba1");
  EXPECT_EQ(computations(make_plan({Kind::kOneFOneB, 3, 4}), 0), "Fa0 Fa1 Fa2 Ba0 Fa3 Ba1 Ba2 Ba3");
  EXPECT_EQ(computations(make_plan({Kind::kOneFOneB, 3, 4}), 2), "Fa0 Ba0 Fa1 Ba1 Fa2 Ba2 Fa3 Ba3");
  EXPECT_EQ(computations(make_plan({Kind::kInterleaved, 2, 2, 2}), 0), "Fa0 Fa1 Fb0 Fb1 Bb0 Bb1 Ba0 Ba1");
  EXPECT_EQ(computations(make_plan({Kind::kInterleaved, 2, 2, 2}), 1), "Fa0 Fa1 Fb0 Bb0 Fb1 Bb1 Ba0 Ba1");
  EXPECT_EQ(computations(make_plan({Kind::kZeroBubbleH1, 2, 3}), 1), "Fa0 Ia0 Fa1 Ia1 Wa0 Fa2 Ia2 Wa1 Wa2");
  EXPECT_EQ(computations(make_plan({Kind::kZeroBubbleH2, 2, 4}), 0), "Fa0 Fa1 Fa2 Ia0 Wa0 Fa3 Ia1 Wa1 Ia2 Wa2 Ia3 Wa3");
}

TEST(Plan, transfers_of_one_rank_by_hand) {
  const Plan plan = make_plan({Kind::kOneFOneB, 2, 2});
  const Work first{0, 0, 0}, second{0, 0, 1};
  const ActionList rank_0{{Op::kForward, first},
                          {Op::kSend, first, {}, Payload::kActivation, 1},
                          {Op::kReceive, first, {}, Payload::kGradient, 1},
                          {Op::kForward, second},
                          {Op::kSend, second, {}, Payload::kActivation, 1},
                          {Op::kReceive, second, {}, Payload::kGradient, 1},
                          // the gradient of 0 proves that the activation of 0 has arrived
                          {Op::kRelease, first, {}, Payload::kActivation, 1},
                          {Op::kBackward, first},
                          {Op::kRelease, second, {}, Payload::kActivation, 1},
                          {Op::kBackward, second}};
  EXPECT_EQ(plan.ranks[0], rank_0);
}

TEST(Plan, sent_gradients_are_released_by_the_forwards_that_follow) {
  // Rank 1 of 2: the activation of micro-batch k + 2 leaves rank 0 after it has consumed gradient k.
  const Plan plan = make_plan({Kind::kOneFOneB, 2, 6});
  int held = 0;
  for (const Action& action : plan.ranks[1]) {
    held += action.op == Op::kSend ? 1 : action.op == Op::kRelease ? -1 : 0;
    EXPECT_LE(held, 3);
  }
  EXPECT_EQ(held, 0);
}

TEST(Plan, the_turn_of_the_v_needs_no_transfer) {
  const Plan alone = make_plan({Kind::kDualPipeV, 1, 4});
  for (const Action& action : alone.ranks[0]) EXPECT_FALSE(is_transfer(action.op));
  const Plan three = make_plan({Kind::kDualPipeV, 3, 6});
  for (const Action& action : three.ranks[2]) {
    EXPECT_EQ(action.peer, is_transfer(action.op) ? 1 : -1);
  }
}

TEST(Plan, a_plan_is_a_pure_function) { EXPECT_EQ(make_plan({Kind::kDualPipeV, 4, 9}), make_plan({Kind::kDualPipeV, 4, 9})); }

TEST(Placement, stages_and_locations_agree) {
  for (const KindRow& row : kinds()) {
    const Placement placement = placement_of({row.kind, 6, 12, row.kind == Kind::kInterleaved ? 3 : 1});
    for (int rank = 0; rank < 6; ++rank) {
      for (int slot = 0; slot < placement.num_slots(); ++slot) {
        const int stage = placement.stage_of(rank, slot);
        const Location here{rank, slot};
        EXPECT_EQ(placement.locate(stage, placement.first_micro_batch(slot)), here) << row.name;
        EXPECT_EQ(placement.locate(stage, placement.end_micro_batch(slot) - 1), here) << row.name;
        const auto copies = placement.copies(stage);
        EXPECT_EQ(std::ranges::count(copies, here), 1) << row.name;
        EXPECT_EQ(copies.size(), row.kind == Kind::kDualPipe ? 2u : 1u);
      }
    }
  }
}

TEST(Kinds, names_are_those_of_the_yaml) {
  for (const char* name : {"gpipe", "1f1b", "interleaved", "zb_h1", "zb_h2", "dualpipe_v", "dualpipe"}) {
    ASSERT_TRUE(find_kind(name).has_value()) << name;
    EXPECT_EQ(name_of(*find_kind(name)), name);
  }
  EXPECT_FALSE(find_kind("1F1B").has_value());
}

TEST(MakePlan, refuses_in_one_sentence_with_the_fix) {
  const auto expect = [](const Request& request, const std::string& part) {
    const std::string reason = why_impossible(request);
    EXPECT_NE(reason.find(part), std::string::npos) << "\"" << reason << "\" without \"" << part << "\"";
    EXPECT_THROW(make_plan(request), UserError);
  };
  expect({Kind::kInterleaved, 4, 10, 2}, "groups of the 4 pipeline ranks, and 10 is no multiple: take 8 or 12 micro-batches");
  expect({Kind::kInterleaved, 4, 8, 1}, "at least 2 chunks per rank, got 1");
  expect({Kind::kDualPipe, 3, 8}, "even number of them, got 3: take 2 or 4, or the schedule dualpipe_v");
  expect({Kind::kDualPipe, 4, 9}, "even number of them, got 9: take 10");
  expect({Kind::kDualPipe, 4, 6}, "at least 8 micro-batches, got 6");
  expect({Kind::kDualPipeV, 4, 7}, "at least 8 micro-batches, got 7");
  expect({Kind::kOneFOneB, 4, 8, 2}, "1f1b has 1 chunk per rank, got 2");
  expect({Kind::kGpipe, 0, 8}, "at least 1 pipeline rank");
  expect({Kind::kDualPipe, 4, 0}, "at least 1 pipeline rank, 1 micro-batch and 1 chunk per rank, got 4, 0 and 1");
}

TEST(MakePlan, no_deadlock_of_dualpipe) {
  for (int ranks = 2; ranks <= 16; ranks += 2) {
    for (const int micro_batches : {2 * ranks, 2 * ranks + 2, 5 * ranks}) {
      EXPECT_TRUE(validate(make_plan({Kind::kDualPipe, ranks, micro_batches})).ok());
    }
  }
  for (int ranks = 1; ranks <= 16; ++ranks) {
    for (const int micro_batches : {2 * ranks, 2 * ranks + 1, 5 * ranks}) {
      EXPECT_TRUE(validate(make_plan({Kind::kDualPipeV, ranks, micro_batches})).ok());
    }
  }
}

TEST(ForwardPlan, runs_any_number_of_micro_batches_once) {
  for (const KindRow& row : kinds()) {
    for (int ranks = 1; ranks <= 5; ++ranks) {
      for (const int micro_batches : {1, 2, 3, 7}) {
        const Plan plan = make_forward_plan({row.kind, ranks, micro_batches, row.kind == Kind::kInterleaved ? 3 : 1});
        EXPECT_TRUE(validate(plan).ok()) << row.name;
        EXPECT_TRUE(plan.forward_only);
      }
    }
  }
}

}  // namespace
}  // namespace hadal::schedule
