// Mistakes that are easily made in a parallel trainer, planted between the ranks of a layout that is right without them: verify catches
// each, and names what differs first.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <memory>

#include "tests/verify/faulty_wire.h"
#include "tests/verify/small_models.h"
#include "verify/reference.h"
#include "verify/shrink.h"
#include "verify/synthetic_data.h"

namespace hadal::verify {
namespace {

using comm::Op;
using test::Call;
using test::Fault;

/// What is wrong with the ranks of a layout; may be empty.
struct Planted {
  std::function<void(train::RunModel&, Fault&)> wire{};  ///< once the rank's model is there
  std::function<void(int rank, Config&)> config{};
  std::function<bool(int rank)> reads_other_rows{};
};

class Faults : public testing::Test {
 protected:
  /// The model with everything in it, of four ranks.
  static const Reference& reference() {
    static const Reference made(shrink(test::everything(), 4, 6));
    return made;
  }

  static LayoutResult run(const test::Split& split, int ranks, const Planted& planted) {
    const Config small = reference().laid_out(split.section());
    const auto other_rows = synthetic_sampler(small.model.vocab_size, small.data.sequence_length, 99);
    std::vector<Config> configs(static_cast<std::size_t>(ranks), small);
    std::vector<Fault> faults(static_cast<std::size_t>(ranks));
    Trajectory trajectory;
    test::run_faulty_group(faults, [&](comm::Communicator& world) {
      const int rank = world.rank();
      Config& config = configs[static_cast<std::size_t>(rank)];
      if (planted.config) planted.config(rank, config);
      const bool other = planted.reads_other_rows && planted.reads_other_rows(rank);
      RankRun rank_run(config, world, other ? *other_rows : reference().sampler());
      if (planted.wire) planted.wire(rank_run.model(), faults[static_cast<std::size_t>(rank)]);
      rank_run.run(trajectory);
    });
    return reference().judge(trajectory);
  }

  /// The layout passes without the fault and fails with it.
  static LayoutResult caught(const test::Split& split, int ranks, const Planted& planted) {
    const LayoutResult right = run(split, ranks, {});
    EXPECT_TRUE(right.passed) << right.tensor << " " << right.worst_error << " " << right.problem;
    LayoutResult wrong = run(split, ranks, planted);
    EXPECT_FALSE(wrong.passed);
    return wrong;
  }
};

void zero(std::span<std::byte> bytes) { std::ranges::fill(bytes, std::byte{0}); }

/// Of the parts of all ranks in a call's bytes, the one of `rank`.
std::span<std::byte> part_of(std::span<std::byte> all, const Call& call, int rank) {
  const std::size_t size = all.size() / static_cast<std::size_t>(call.size);
  return all.subspan(static_cast<std::size_t>(rank) * size, size);
}

void scale(std::span<std::byte> values, double factor) {
  for (std::size_t at = 0; at + sizeof(double) <= values.size(); at += sizeof(double)) {
    double value = 0;
    std::memcpy(&value, values.data() + at, sizeof value);
    value *= factor;
    std::memcpy(values.data() + at, &value, sizeof value);
  }
}

/// Elements of a gradient in this rank's memory.
struct Elements {
  std::uintptr_t begin = 0, end = 0;
};

/// This rank's shares of these gradients are multiplied on their way into the sums.
void scale_shares(Fault& fault, std::vector<Elements> elements, double factor) {
  fault.give = [elements = std::move(elements), factor](const Call& call, std::span<std::byte> given) {
    if (call.op != Op::kReduceScatter || call.group != "replicas") return;
    const auto memory = reinterpret_cast<std::uintptr_t>(call.memory);
    for (const Elements& e : elements) {
      const std::uintptr_t begin = std::max(e.begin, memory), end = std::min(e.end, memory + given.size());
      if (begin < end) scale(given.subspan(begin - memory, end - begin), factor);
    }
  };
}

/// The gradient of a logical tensor, from one of its rows on.
std::vector<Elements> gradient_of(train::RunModel& model, const std::string& name, std::int64_t first_row = 0) {
  std::vector<Elements> found;
  for (nn::Parameter* parameter : model.model().parameters()) {
    for (const nn::LogicalPart& part : parameter->parts()) {
      if (part.name != name) continue;
      std::int64_t row = 1;
      for (std::size_t d = 1; d < part.extent.size(); ++d) row *= part.extent[d];
      const double* grad = parameter->grad().as<double>() + part.offset;
      found.push_back({reinterpret_cast<std::uintptr_t>(grad + first_row * row), reinterpret_cast<std::uintptr_t>(grad + part.extent[0] * row)});
    }
  }
  return found;
}

/// Sums over `group` in `phase` (and `layer`, -1: any) that do not happen on this rank: it keeps what it has.
void leave_out_sum(Fault& fault, Op op, std::string group, std::string phase, int layer = -1, DType dtype = DType::kF64) {
  fault.get = [=](const Call& call, std::span<const std::byte> given, std::span<std::byte> got) {
    if (call.op != op || call.group != group || call.phase != phase || call.dtype != dtype || (layer >= 0 && call.layer != layer)) return;
    const std::size_t begin = op == Op::kReduceScatter ? static_cast<std::size_t>(call.rank) * got.size() : 0;
    std::ranges::copy(given.subspan(begin, got.size()), got.begin());
  };
}

TEST_F(Faults, reduction_over_tp_is_missing_in_forward) {
  const LayoutResult result = caught({.tp = 2}, 2, {.wire = [](train::RunModel&, Fault& fault) {
                                       leave_out_sum(fault, Op::kReduceScatter, "tp", "forward", 1);
                                     }});
  EXPECT_EQ(result.tensor, "loss of step 1");
}

TEST_F(Faults, reduction_over_tp_is_missing_in_backward) {
  const LayoutResult result = caught({.tp = 2}, 2, {.wire = [](train::RunModel& model, Fault& fault) {
                                       if (model.place().tp_rank == 1) leave_out_sum(fault, Op::kReduceScatter, "tp", "backward", 1);
                                     }});
  EXPECT_TRUE(result.tensor.starts_with("gradient of model.")) << result.tensor;
}

TEST_F(Faults, loss_scale_is_a_local_count) {
  const LayoutResult result = caught({}, 2, {.wire = [](train::RunModel&, Fault& fault) {
                                       leave_out_sum(fault, Op::kAllReduce, "world", "", -1, DType::kI64);
                                     }});
  EXPECT_EQ(result.tensor, "loss of step 1");
}

TEST_F(Faults, gradient_of_k_pe_is_not_summed_over_tp) {
  const std::string name = "model.layers.1.self_attn.kv_a_proj_with_mqa.weight";
  const std::int64_t k_pe = reference().config().model.attention.kv_lora_rank;
  const LayoutResult result = caught({.tp = 2}, 2, {.wire = [&](train::RunModel& model, Fault& fault) {
                                       if (model.place().tp_rank == 1) scale_shares(fault, gradient_of(model, name, k_pe), 0.0);
                                     }});
  EXPECT_EQ(result.tensor, "gradient of " + name);
}

TEST_F(Faults, expert_gradients_are_scaled_by_ep) {
  const LayoutResult result = caught({.ep = 2}, 4, {.wire = [](train::RunModel& model, Fault& fault) {
                                       std::vector<Elements> experts;
                                       for (nn::Parameter* parameter : model.model().parameters()) {
                                         if (parameter->options().replication != nn::Replication::kExpert) continue;
                                         const auto* grad = static_cast<const std::byte*>(parameter->grad().data);
                                         const auto begin = reinterpret_cast<std::uintptr_t>(grad);
                                         experts.push_back({begin, begin + parameter->grad().bytes()});
                                       }
                                       scale_shares(fault, std::move(experts), 2.0);
                                     }});
  EXPECT_TRUE(result.tensor.starts_with("gradient of model.layers.") && result.tensor.find(".mlp.experts.") != std::string::npos)
      << result.tensor;
}

TEST_F(Faults, halo_is_dropped) {
  const LayoutResult result = caught({.cp = 2}, 2, {.wire = [](train::RunModel&, Fault& fault) {
                                       fault.get = [](const Call& call, std::span<const std::byte>, std::span<std::byte> got) {
                                         const bool halo = call.op == Op::kAllGather && call.group == "cp" && call.phase == "forward" && call.layer == 1;
                                         if (halo && call.rank == 0) zero(part_of(got, call, 1));
                                       };
                                     }});
  EXPECT_EQ(result.tensor, "loss of step 1");
}

TEST_F(Faults, gradient_of_a_halo_is_dropped) {
  const LayoutResult result = caught({.cp = 2}, 2, {.wire = [](train::RunModel&, Fault& fault) {
                                       fault.give = [](const Call& call, std::span<std::byte> given) {
                                         const bool halo = call.op == Op::kReduceScatter && call.group == "cp" && call.phase == "backward" && call.layer == 1;
                                         if (halo && call.rank == 0) zero(part_of(given, call, 1));
                                       };
                                     }});
  EXPECT_TRUE(result.tensor.starts_with("gradient of model.")) << result.tensor;
}

TEST_F(Faults, micro_batches_are_swapped) {
  const test::Split split{.pp = 2, .schedule = ScheduleKind::kGpipe, .stages = {{.layers = 2}, {.layers = 1, .head = true, .mtp = 2}}};
  const LayoutResult result = caught(split, 2, {.wire = [](train::RunModel&, Fault& fault) {
                                       fault.swap_with_next = [](const Call& call) { return call.phase == "sending forward" && call.micro_batch == 0; };
                                     }});
  EXPECT_EQ(result.tensor, "loss of step 1");
}

TEST_F(Faults, balancing_counts_are_those_of_one_rank) {
  const LayoutResult result = caught({}, 2, {.wire = [](train::RunModel& model, Fault& fault) {
                                       if (model.place().dp_rank == 1) leave_out_sum(fault, Op::kAllReduce, "world", "expert loads", -1, DType::kI64);
                                     }});
  EXPECT_NE(result.problem.find("different copies of element"), std::string::npos) << result.problem;
  EXPECT_NE(result.problem.find("e_score_correction_bias"), std::string::npos) << result.problem;
}

TEST_F(Faults, embedding_of_mtp_is_not_summed_over_stages) {
  const LayoutResult result = caught({.pp = 2}, 2, {.wire = [](train::RunModel& model, Fault& fault) {
                                       if (model.place().pp_rank == 1) scale_shares(fault, gradient_of(model, "model.embed_tokens.weight"), 0.0);
                                     }});
  EXPECT_EQ(result.tensor, "gradient of model.embed_tokens.weight");
}

TEST_F(Faults, mirror_gradient_of_dualpipe_is_not_summed) {
  const std::string name = "model.layers.1.self_attn.o_proj.weight";
  const LayoutResult result =
      caught({.pp = 2, .schedule = ScheduleKind::kDualPipe}, 2, {.wire = [&](train::RunModel& model, Fault& fault) {
               if (model.place().pp_rank == 1) scale_shares(fault, gradient_of(model, name), 0.0);
             }});
  EXPECT_EQ(result.tensor, "gradient of " + name);
}

TEST_F(Faults, norm_counts_a_rank_twice) {
  const LayoutResult result = caught({.tp = 2}, 2, {.wire = [](train::RunModel& model, Fault& fault) {
                                       if (model.place().tp_rank == 0) return;
                                       fault.give = [](const Call& call, std::span<std::byte> given) {
                                         if (call.op == Op::kAllReduce && call.group == "world" && call.phase == "optimizer") scale(given, 2.0);
                                       };
                                     }});
  EXPECT_EQ(result.tensor, "gradient norm of step 1");
}

TEST_F(Faults, a_data_parallel_rank_reads_other_rows) {
  const LayoutResult result = caught({}, 2, {.reads_other_rows = [](int rank) { return rank == 1; }});
  EXPECT_EQ(result.tensor, "loss of step 1");
}

TEST_F(Faults, the_owner_of_a_segment_skips_weight_decay) {
  const LayoutResult result = caught({}, 2, {.config = [](int rank, Config& config) {
                                       if (rank == 1) config.optim.weight_decay = 0;
                                     }});
  EXPECT_EQ(result.tensor, "loss of step 2");
}

TEST_F(Faults, updated_values_do_not_arrive) {
  const LayoutResult result = caught({}, 2, {.wire = [](train::RunModel& model, Fault& fault) {
                                       if (model.place().dp_rank == 0) return;
                                       fault.get = [](const Call& call, std::span<const std::byte>, std::span<std::byte> got) {
                                         if (call.op == Op::kAllGather && call.group == "replicas") zero(part_of(got, call, 0));
                                       };
                                     }});
  EXPECT_EQ(result.tensor, "loss of step 2");
}

TEST_F(Faults, gradients_of_dispatched_tokens_are_lost) {
  const LayoutResult result = caught({.ep = 2}, 2, {.wire = [](train::RunModel& model, Fault& fault) {
                                       if (model.place().ep_rank == 0) return;
                                       fault.give = [](const Call& call, std::span<std::byte> given) {
                                         if (call.op == Op::kAllToAll && call.phase == "backward" && call.layer == 1) zero(given);
                                       };
                                     }});
  EXPECT_TRUE(result.tensor.starts_with("gradient of model.")) << result.tensor;
}

TEST_F(Faults, importance_of_blocks_is_not_summed_over_tp) {
  const LayoutResult result = caught({.tp = 4}, 4, {.wire = [](train::RunModel&, Fault& fault) {
                                       leave_out_sum(fault, Op::kAllReduce, "selection", "forward");
                                     }});
  EXPECT_EQ(result.tensor, "loss of step 1");
}

}  // namespace
}  // namespace hadal::verify
