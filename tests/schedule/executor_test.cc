// The executor on threads: every schedule computes what one loop computes, bit for bit; what it refuses; what it measures.
#include "schedule/executor.h"

#include <gtest/gtest.h>

#include <stdexcept>

#include "comm/local/local_group.h"
#include "core/error.h"
#include "schedule/kinds.h"
#include "schedule/make_plan.h"
#include "schedule/peaks.h"
#include "tests/schedule/fake_stage.h"

namespace hadal::schedule {
namespace {

class EverySchedule : public testing::TestWithParam<Kind> {
 protected:
  static Request request(int ranks, int micro_batches) {
    return {GetParam(), ranks, micro_batches, GetParam() == Kind::kInterleaved ? 3 : 1};
  }
};

TEST_P(EverySchedule, equals_one_loop) {
  for (const int ranks : {1, 2, 3, 4, 6}) {
    for (const int micro_batches : {2, 6, 12, 16}) {
      if (!why_impossible(request(ranks, micro_batches)).empty()) continue;
      EXPECT_EQ(test::run_and_compare(make_plan(request(ranks, micro_batches))), "") << ranks << " ranks, " << micro_batches;
    }
  }
}

TEST_P(EverySchedule, evaluates) {
  for (const int ranks : {1, 2, 3, 4}) {
    for (const int micro_batches : {1, 3, 8}) {
      EXPECT_EQ(test::run_and_compare(make_forward_plan(request(ranks, micro_batches))), "")
          << ranks << " ranks, " << micro_batches;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(kinds, EverySchedule,
                         testing::Values(Kind::kGpipe, Kind::kOneFOneB, Kind::kInterleaved, Kind::kZeroBubbleH1,
                                         Kind::kZeroBubbleH2, Kind::kDualPipeV, Kind::kDualPipe),
                         [](const auto& kind) { return "k_" + std::string(name_of(kind.param)); });

TEST(Executor, the_fake_stages_see_a_wrong_micro_batch) {
  class Mistaken : public test::FakeStages {
   public:
    using FakeStages::FakeStages;
    // 0 and 5 have tensors of one size
    Tensor forward(int slot, int micro_batch, Tensor x) override {
      return FakeStages::forward(slot, micro_batch % 5 == 0 ? 5 - micro_batch : micro_batch, std::move(x));
    }
  };
  const Plan plan = make_forward_plan({Kind::kOneFOneB, 2, 6});
  std::map<int, double> right, wrong;
  comm::run_local_group(2, [&](comm::Communicator& pipeline) {
    test::FakeStages good(plan, pipeline.rank()), last(plan, pipeline.rank());
    Mistaken first(plan, pipeline.rank());
    execute(plan, pipeline, good);
    execute(plan, pipeline, pipeline.is_root() ? static_cast<StageRunner&>(first) : last);
    if (pipeline.is_root()) return;
    right = good.losses();
    wrong = last.losses();
  });
  ASSERT_EQ(right.size(), 6u);
  for (int k = 0; k < 6; ++k) EXPECT_EQ(right[k] == wrong[k], k % 5 != 0) << k;
}

TEST(Executor, a_neighbour_on_the_same_rank_gets_the_tensor_itself) {
  class Stages : public test::FakeStages {
   public:
    using FakeStages::FakeStages;
    Tensor forward(int slot, int micro_batch, Tensor x) override {
      if (slot == 1) same += std::as_const(x).view().data == handed[micro_batch] ? 1 : 0;
      Tensor y = FakeStages::forward(slot, micro_batch, std::move(x));
      if (slot == 0) handed[micro_batch] = std::as_const(y).view().data;
      return y;
    }
    std::map<int, const void*> handed;
    int same = 0;
  };
  const Plan plan = make_plan({Kind::kDualPipeV, 1, 4});
  comm::run_local_group(1, [&](comm::Communicator& pipeline) {
    Stages stages(plan, 0);
    execute(plan, pipeline, stages);
    EXPECT_EQ(stages.same, 4);
  });
}

TEST(Executor, sent_tensors_are_freed_at_their_release) {
  for (const KindRow& row : kinds()) {
    const Plan plan = make_plan({row.kind, 2, 40, row.kind == Kind::kInterleaved ? 2 : 1});
    const std::size_t before = memory_stats(kCpu).live_bytes;
    reset_peak(kCpu);
    comm::run_local_group(2, [&](comm::Communicator& pipeline) {
      test::EmptyStages stages(plan.placement, pipeline.rank());
      execute(plan, pipeline, stages);
    });
    const auto peaks = peak_messages(plan);
    const int in_hands = 2 * 4;  // x, y, d_y, d_x of a pair on either rank
    EXPECT_LE(memory_stats(kCpu).peak_bytes - before,
              static_cast<std::size_t>((peaks[0] + peaks[1] + in_hands) * test::EmptyStages::kBytes))
        << row.name;
    EXPECT_EQ(memory_stats(kCpu).live_bytes, before);
    // Kept until the end, they would be at least 40 on either rank.
    if (row.kind != Kind::kGpipe) {
      EXPECT_LE(peaks[0] + peaks[1], 16) << row.name;
    }
  }
}

TEST(Executor, a_stage_that_returns_the_wrong_shape_is_named) {
  class Stages : public test::FakeStages {
   public:
    using FakeStages::FakeStages;
    Tensor backward_input(int slot, int micro_batch, Tensor d_y) override {
      Tensor d_x = FakeStages::backward_input(slot, micro_batch, std::move(d_y));
      return d_x.defined() && micro_batch == 2 ? Tensor::zeros(Shape{7}, DType::kF64) : std::move(d_x);
    }
  };
  const Plan plan = make_plan({Kind::kOneFOneB, 2, 4});
  try {
    comm::run_local_group(2, [&](comm::Communicator& pipeline) {
      Stages stages(plan, pipeline.rank());
      execute(plan, pipeline, stages);
    });
    FAIL() << "no error";
  } catch (const ContractError& error) {
    EXPECT_NE(std::string(error.what()).find("slot 0 returned f64 [7] as the gradient of micro-batch 2 for stage 0"),
              std::string::npos)
        << error.what();
  }
}

TEST(Executor, a_stage_that_throws_ends_every_rank) {
  class Stages : public test::FakeStages {
   public:
    using FakeStages::FakeStages;
    void backward_weight(int, int) override { throw std::runtime_error("broken weights"); }
  };
  const Plan plan = make_plan({Kind::kDualPipe, 4, 8});
  EXPECT_THROW(comm::run_local_group(4,
                                     [&](comm::Communicator& pipeline) {
                                       test::FakeStages good(plan, pipeline.rank());
                                       Stages bad(plan, pipeline.rank());
                                       execute(plan, pipeline, pipeline.rank() == 2 ? static_cast<StageRunner&>(bad) : good);
                                     }),
               std::runtime_error);
}

TEST(Executor, a_hang_ends_in_a_sentence_with_phase_and_micro_batch) {
  Plan plan = make_plan({Kind::kOneFOneB, 2, 4});
  std::erase_if(plan.ranks[0], [](const Action& action) { return action.op == Op::kSend && action.work.micro_batch == 2; });
  try {
    comm::run_local_group(2, [&](comm::Communicator& pipeline) {
      test::FakeStages stages(plan, pipeline.rank());
      execute(plan, pipeline, stages);
    });
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("deadlock: ranks 0 1 wait for each other"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("in forward of micro-batch 2"), std::string::npos) << error.what();
    EXPECT_NE(std::string(error.what()).find("in backward of micro-batch 2"), std::string::npos) << error.what();
  }
}

TEST(Executor, a_plan_for_another_number_of_ranks_is_refused) {
  const Plan plan = make_plan({Kind::kGpipe, 3, 4});
  EXPECT_THROW(comm::run_local_group(2,
                                     [&](comm::Communicator& pipeline) {
                                       test::FakeStages stages(plan, pipeline.rank());
                                       execute(plan, pipeline, stages);
                                     }),
               ContractError);
}

}  // namespace
}  // namespace hadal::schedule
