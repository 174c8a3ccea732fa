// Layouts that are not even: stages written by hand, rows that do not divide among ranks; and layouts that cannot be, refused with the
// values that do not fit.
#include <gtest/gtest.h>

#include "core/error.h"
#include "plan/layout.h"
#include "tests/verify/small_models.h"
#include "verify/reference.h"
#include "verify/shrink.h"

namespace hadal::verify {
namespace {

void expect_equal(const Reference& reference, const test::Split& split, std::int64_t ranks) {
  const LayoutResult result = reference.prove(split.section(), ranks);
  EXPECT_TRUE(result.passed) << ranks << " ranks, " << result.name << ": " << result.tensor << " differs by " << result.worst_error << "; "
                             << result.problem;
}

/// Four layers and two MTP modules.
Config small() { return shrink(test::everything(), 4, 8); }

TEST(StagesByHand, equal_one_rank) {
  const Reference reference(small());
  ASSERT_EQ(reference.config().model.num_layers, 4);
  using Stages = std::vector<StageSection>;
  const Stages uneven{{.layers = 3}, {.layers = 1, .head = true, .mtp = 2}};
  const Stages embedding_alone{{.layers = 0}, {.layers = 4, .head = true, .mtp = 2}};
  const Stages no_layer_at_the_end{{.layers = 4}, {.head = true, .mtp = 2}};
  for (const Stages& stages : {uneven, embedding_alone, no_layer_at_the_end}) {
    for (const ScheduleKind schedule : {ScheduleKind::kOneFOneB, ScheduleKind::kZeroBubbleH2, ScheduleKind::kDualPipe}) {
      expect_equal(reference, {.tp = 2, .pp = 2, .schedule = schedule, .stages = stages}, 4);
      expect_equal(reference, {.cp = 2, .pp = 2, .ep = 2, .schedule = schedule, .stages = stages}, 4);
    }
  }
  // Head and MTP modules in stages of their own, so that embedding and head have copies.
  const Stages mtp_apart{{.layers = 0}, {.layers = 4}, {.head = true}, {.mtp = 2}};
  const Stages mtp_in_two{{.layers = 1}, {.layers = 3, .head = true}, {.mtp = 1}, {.mtp = 1}};
  for (const Stages& stages : {mtp_apart, mtp_in_two}) {
    for (const ScheduleKind schedule : {ScheduleKind::kGpipe, ScheduleKind::kOneFOneB, ScheduleKind::kZeroBubbleH1, ScheduleKind::kDualPipe}) {
      expect_equal(reference, {.pp = 4, .schedule = schedule, .stages = stages}, 4);
    }
    for (const ScheduleKind schedule : {ScheduleKind::kInterleaved, ScheduleKind::kDualPipeV}) {
      expect_equal(reference, {.tp = 2, .pp = 2, .schedule = schedule, .stages = stages}, 4);
      expect_equal(reference, {.pp = 2, .schedule = schedule, .stages = stages}, 4);
    }
  }
}

TEST(UnevenRows, equal_one_rank) {
  Config config = small();
  config.train.global_batch = 13;  // over two places 7 and 6, over four 4 3 3 3: micro-batches of 2 and 1 rows
  const Reference reference(config);
  expect_equal(reference, {}, 2);
  expect_equal(reference, {}, 4);
  expect_equal(reference, {.tp = 2, .ep = 2}, 4);
  expect_equal(reference, {.cp = 2, .etp = 2}, 4);
  for (const ScheduleKind schedule : {ScheduleKind::kGpipe, ScheduleKind::kOneFOneB, ScheduleKind::kZeroBubbleH1}) {
    expect_equal(reference, {.pp = 2, .schedule = schedule}, 4);
  }
}

TEST(UnevenRows, a_place_without_a_row_equals_one_rank) {
  Config config = small();
  config.train.global_batch = 3;
  const Reference reference(config);
  expect_equal(reference, {}, 4);
  config.train.global_batch = 1;
  const Reference one_row(config);
  expect_equal(one_row, {.tp = 2, .ep = 2}, 4);
  expect_equal(one_row, {.pp = 2, .schedule = ScheduleKind::kGpipe}, 4);
}

/// The sentence that refuses `split`; empty when it can be.
std::string refusal(const test::Split& split, std::int64_t ranks, Config config = small()) {
  config.parallel = split.section();
  try {
    plan::make_layout(config, ranks);
    return "";
  } catch (const UserError& error) {
    return error.what();
  }
}

void expect_refused(const std::string& sentence, const std::string& says) {
  EXPECT_NE(sentence.find(says), std::string::npos) << "\"" << sentence << "\" does not say \"" << says << "\"";
}

TEST(Refusals, name_the_values) {
  expect_refused(refusal({.tp = 4}, 6), "6 ranks cannot be laid out as pp 1 x cp 1 x tp 4");
  expect_refused(refusal({.ep = 3}, 4), "ep 3 x etp 1 = 3 must divide the dp 4 x cp 1 x tp 1 = 4 ranks");
  expect_refused(refusal({.tp = 3}, 3), "parallel.tp 3 must divide model.attention.num_heads 4");
  expect_refused(refusal({.ep = 3}, 3), "parallel.ep 3 must divide model.moe.num_experts 8");
  expect_refused(refusal({.etp = 3}, 3), "parallel.etp 3 must divide model.moe.intermediate_size 4");
  expect_refused(refusal({.cp = 3}, 3), "data.sequence_length 16 must be a multiple of 2 x parallel.cp 3 = 6");
  expect_refused(refusal({.ep = 2, .ranks_per_node = 3}, 2), "parallel.ranks_per_node 3 must divide ep 2 x etp 1 = 2");
  expect_refused(refusal({.ranks_per_node = 2}, 2), "parallel.ranks_per_node 2 is for tokens that travel to experts");
  expect_refused(refusal({.pp = 9, .schedule = ScheduleKind::kGpipe}, 9), "9 pipeline stages for a model of 8 pieces");
}

TEST(Refusals, name_everything_at_once) {
  const std::string sentences = refusal({.tp = 3, .ep = 3}, 3);
  expect_refused(sentences, "parallel.tp 3 must divide model.attention.num_heads 4");
  expect_refused(sentences, "parallel.ep 3 must divide model.moe.num_experts 8");
}

TEST(Refusals, of_stages_and_schedules) {
  expect_refused(refusal({.pp = 2, .stages = {{.layers = 2}, {.layers = 1, .head = true, .mtp = 2}}}, 2),
                 "parallel.stages hold 3 layers in all, model.num_layers is 4");
  expect_refused(refusal({.pp = 2, .stages = {{.layers = 2}, {.layers = 2, .head = true, .mtp = 1}}}, 2),
                 "parallel.stages hold 1 MTP modules in all, model.mtp.depth is 2");
  expect_refused(refusal({.pp = 2, .stages = {{.layers = 4, .head = true, .mtp = 2}}}, 2),
                 "parallel.stages describes 1 stages; parallel.pp and parallel.schedule make 2");
  expect_refused(refusal({.pp = 3, .schedule = ScheduleKind::kDualPipe}, 3),
                 "dualpipe pairs each pipeline rank with its mirror and needs an even number of them, got 3");
  Config odd = small();
  odd.train.global_batch = 10;
  expect_refused(refusal({.pp = 2, .schedule = ScheduleKind::kDualPipe}, 2, odd),
                 "train.global_batch 10: dualpipe feeds half of the micro-batches in at each end and needs an even number of them, got 5");
}

TEST(Refusals, of_batches_that_experts_cannot_share) {
  Config config = small();
  config.train.global_batch = 13;
  expect_refused(refusal({.ep = 2}, 2, config), "train.global_batch 13 must be a multiple of dp 2 x train.micro_batch 2 = 4");
}

TEST(Refusals, end_a_proof_with_their_sentence) {
  const LayoutResult result = Reference(small()).prove(test::Split{.tp = 3}.section(), 3);
  EXPECT_FALSE(result.passed);
  expect_refused(result.problem, "parallel.tp 3 must divide model.attention.num_heads 4");
}

}  // namespace
}  // namespace hadal::verify
