// Guards: a forward pass and a backward pass of two micro-batches that run in turns give the bits of one after the other (losses,
// balance losses, every gradient), on one rank and over ep 2; every transfer has compute of the other pass between its start and
// its finish; and that hides most of its time.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <optional>

#include "comm/local/local_group.h"
#include "nn/moe/local_exchange.h"
#include "parallel/moe_layout.h"
#include "tests/support/small_model.h"
#include "tests/model/watched_exchange.h"

namespace hadal::model {
namespace {

enum class Order { kSequential, kInTurns };

constexpr int kMicroBatches = 4;

ModelOptions options_of(AttentionKind kind) {
  ModelOptions o = test::small_model(kind, SparseKind::kNone);
  o.shape.num_layers = 3;
  return o;
}

/// A whole model on this rank, or its share of one whose experts lie on several.
struct Trainee {
  Trainee(const ModelOptions& options, const parallel::LayerGroups& groups)
      : tables(options, groups), stage(options, whole_model(options.shape), groups, tables) {
    for (nn::Parameter* parameter : stage.parameters()) parameter->initialize(9);
  }

  Stage::PassPtr forward(const std::vector<MicroBatch>& batches, std::size_t m) {
    outcomes.resize(batches.size());
    if (!losses) losses.emplace(std::ssize(batches), std::ssize(batches[m].mtp), kCpu);
    outcomes[m].losses = losses->row(static_cast<std::int64_t>(m));
    return stage.forward_pass(stream, batches[m], {}, &records[m], outcomes[m]);
  }
  Stage::PassPtr backward(std::size_t m) { return stage.backward_pass(stream, *records[m], {}, true); }

  SharedTables tables;
  Stage stage;
  Stream stream;
  std::map<std::size_t, Stage::RecordPtr> records;
  std::vector<Stage::Outcome> outcomes;
  std::optional<LossTable> losses;
};

/// Each segment says that it begins.
void watch_segments(SegmentList& list, test::Watch& watch) {
  for (Segment& segment : list.segments) {
    segment.run = [run = segment.run, name = segment.name, phase = list.phase, &watch] {
      watch.phase = phase;
      watch.see(name);
      run();
    };
  }
}

/// F of micro-batch m + 1 with B of m, for all; those pairs are watched where there is a watch. Returns their seconds.
double run_pairs(Trainee& trainee, const std::vector<MicroBatch>& batches, Order order, test::Watch* watch = nullptr) {
  run_segments(trainee.forward(batches, 0)->list);
  if (watch != nullptr) {
    watch->events.clear();
    watch->travelled = watch->exposed = test::Watch::Seconds(0);
  }
  const auto begin = std::chrono::steady_clock::now();
  for (std::size_t m = 0; m + 1 < batches.size(); ++m) {
    const Stage::PassPtr forward = trainee.forward(batches, m + 1), backward = trainee.backward(m);
    if (watch != nullptr) {
      watch_segments(forward->list, *watch);
      watch_segments(backward->list, *watch);
    }
    if (order == Order::kInTurns) {
      run_in_turns(forward->list, static_cast<int>(m) + 1, backward->list, static_cast<int>(m));
    } else {
      run_segments(forward->list);
      run_segments(backward->list);
    }
  }
  const test::Watch::Seconds seconds = std::chrono::steady_clock::now() - begin;
  const test::Watch seen = watch != nullptr ? *watch : test::Watch{};
  run_segments(trainee.backward(batches.size() - 1)->list);
  if (watch != nullptr) *watch = seen;
  return seconds.count();
}

std::vector<MicroBatch> micro_batches(const ModelOptions& options, std::int64_t batch, std::int64_t seq, std::uint64_t seed) {
  std::vector<MicroBatch> batches;
  for (std::uint64_t m = 0; m < kMicroBatches; ++m) batches.push_back(test::make_micro_batch(options, batch, seq, seed + m));
  return batches;
}

/// All that training reads afterwards, by name.
using Numbers = std::map<std::string, std::vector<double>>;

Numbers numbers_of(const ModelOptions& options, const parallel::LayerGroups& groups, std::uint64_t seed, Order order) {
  Trainee trainee(options, groups);
  run_pairs(trainee, micro_batches(options, 2, 13, seed), order);
  Numbers numbers;
  for (nn::Parameter* parameter : trainee.stage.parameters()) {
    if (!parameter->options().trainable) continue;
    const auto gradient = parameter->grad().span<double>();
    numbers[parameter->name()].assign(gradient.begin(), gradient.end());
  }
  for (const Losses& losses : trainee.losses->read(trainee.stream)) {
    numbers["main loss"].push_back(losses.main);
    for (const double loss : losses.mtp) numbers["MTP losses"].push_back(loss);
  }
  for (const Stage::PlacedMoe& moe : trainee.stage.moe_layers()) {
    numbers["balance losses"].push_back(*moe.layer->balance_loss().as<double>());
    for (const std::int64_t count : moe.layer->counts().span<std::int64_t>()) numbers["loads"].push_back(static_cast<double>(count));
  }
  return numbers;
}

void expect_same_bits(const Numbers& a, const Numbers& b) {
  ASSERT_EQ(a.size(), b.size());
  double largest = 0;
  for (const auto& [name, values] : a) {
    EXPECT_EQ(values, b.at(name)) << name;
    for (const double value : values) largest = std::max(largest, std::abs(value));
  }
  EXPECT_GT(largest, 0);
}

TEST(Overlap, GivesTheBitsOfOneAfterTheOther) {
  for (const AttentionKind kind : {AttentionKind::kMla, AttentionKind::kGqa}) {
    const ModelOptions options = options_of(kind);
    const Numbers sequential = numbers_of(options, {}, 3, Order::kSequential);
    EXPECT_GT(sequential.size(), 20u);
    expect_same_bits(numbers_of(options, {}, 3, Order::kInTurns), sequential);
  }
}

TEST(Overlap, GivesTheSameBitsWithExpertsOnTwoRanks) {
  const ModelOptions options = options_of(AttentionKind::kMla);
  comm::run_local_group(2, [&](comm::Communicator& world) {
    const int rank = world.rank();
    parallel::LayerGroups groups;
    groups.experts = &world;
    groups.expert = {rank, 2};
    groups.dispatch = parallel::make_expert_dispatch(groups, options.shape.moe.num_experts);
    const auto seed = static_cast<std::uint64_t>(100 + 10 * rank);
    const Numbers sequential = numbers_of(options, groups, seed, Order::kSequential);
    expect_same_bits(numbers_of(options, groups, seed, Order::kInTurns), sequential);
  });
}

/// Transfers between whose start and finish the other pass began no segment; and all transfers.
struct Bare {
  int bare = 0, all = 0;
};
Bare bare_transfers(const std::vector<test::Watch::Event>& events) {
  Bare result;
  for (std::size_t i = 0; i < events.size(); ++i) {
    if (events[i].what != "start") continue;
    ++result.all;
    bool other = false;
    // Of one pass, only one transfer is under way at a time.
    for (std::size_t j = i + 1; !(events[j].what == "finish" && events[j].phase == events[i].phase); ++j) {
      other = other || events[j].phase != events[i].phase;
    }
    result.bare += other ? 0 : 1;
  }
  return result;
}

parallel::LayerGroups watched_groups(const ModelOptions& options, test::Watch& watch) {
  parallel::LayerGroups groups;
  groups.dispatch = std::make_shared<test::WatchedExchange>(std::make_shared<nn::LocalExchange>(options.shape.moe.num_experts), watch);
  return groups;
}

TEST(Overlap, EveryTransferLiesOverComputeOfTheOtherPass) {
  const ModelOptions options = options_of(AttentionKind::kMla);
  const std::vector<MicroBatch> batches = micro_batches(options, 1, 7, 3);
  for (const Order order : {Order::kInTurns, Order::kSequential}) {
    test::Watch watch;
    Trainee trainee(options, watched_groups(options, watch));
    run_pairs(trainee, batches, order, &watch);
    const Bare transfers = bare_transfers(watch.events);
    // MoE layers, MTP's included; both ways there and back; pairs.
    EXPECT_EQ(transfers.all, (2 + 2) * 2 * 2 * (kMicroBatches - 1));
    EXPECT_EQ(transfers.bare, order == Order::kInTurns ? 0 : transfers.all);
  }
}

TEST(Overlap, HidesMostOfTheTravellingTime) {
  ModelOptions options = options_of(AttentionKind::kMla);
  options.shape.hidden_size = 96;
  options.shape.intermediate_size = 192;
  options.shape.moe.intermediate_size = 96;
  const std::vector<MicroBatch> batches = micro_batches(options, 4, 32, 3);
  const auto run = [&](Order order, test::Watch::Seconds travel) {
    test::Watch watch;
    watch.travel = travel;
    Trainee trainee(options, watched_groups(options, watch));
    const double seconds = run_pairs(trainee, batches, order, &watch);
    return std::pair<test::Watch, double>(std::move(watch), seconds);
  };
  // A transfer takes half of what the compute takes that there is for each, on a machine that nobody disturbs.
  double compute = INFINITY, transfers = 0;
  for (int i = 0; i < 3; ++i) {
    const auto free = run(Order::kSequential, test::Watch::Seconds(0));
    compute = std::min(compute, free.second);
    transfers = static_cast<double>(bare_transfers(free.first.events).all);
  }
  const test::Watch::Seconds travel(compute / transfers / 2);
  const auto sequential = run(Order::kSequential, travel), in_turns = run(Order::kInTurns, travel);
  const auto share = [](const test::Watch& watch) { return watch.exposed / watch.travelled; };
  std::printf("transfers of %.2f ms: %.0f %% exposed one after the other (%.0f ms in all), %.0f %% in turns (%.0f ms)\n",
              1e3 * travel.count(), 100 * share(sequential.first), 1e3 * sequential.second, 100 * share(in_turns.first),
              1e3 * in_turns.second);
  EXPECT_GT(share(sequential.first), 0.3);
  EXPECT_LT(share(in_turns.first), 0.5 * share(sequential.first));
}

}  // namespace
}  // namespace hadal::model
