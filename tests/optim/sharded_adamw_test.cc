// Guards: ZeRO-1 AdamW over thread ranks equals the plain formula in f64 (values, moments, average, global norm), for groups of
// several sizes at once, segments that cut parameters, decay exemptions and clipping; it has the same bits in every run and for
// every order in which gradients get ready; state moves between groups of different sizes; bf16 moments stay close; misuse is
// refused.
#include "optim/sharded_adamw.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "comm/local/local_group.h"
#include "comm/single.h"
#include "core/rng.h"

namespace hadal::optim {
namespace {

/// One logical parameter, held by the ranks of one group.
struct Spec {
  std::string name;
  Shape shape;
  bool decays;
  std::size_t group;
};

/// Groups of world ranks and the parameters of each.
struct Grouping {
  int ranks;
  std::vector<std::vector<int>> groups;

  std::vector<Spec> specs() const {
    std::vector<Spec> all;
    for (std::size_t g = 0; g < groups.size(); ++g) {
      const Shape shapes[] = {Shape{1},  Shape{7, 5},   Shape{300 + 11 * static_cast<std::int64_t>(g)},
                              Shape{16}, Shape{13, 29}, Shape{3}};
      for (const Shape& shape : shapes) {
        all.push_back({"group" + std::to_string(g) + ".p" + std::to_string(all.size()), shape, shape.rank() > 1, g});
      }
    }
    return all;
  }
};

OptimSection options() {
  OptimSection o;
  o.weight_decay = 0.1;
  o.clip_norm = 5.0;
  o.ema_decay = 0.9;
  return o;
}

constexpr std::int64_t kSmallBuckets = 100 * sizeof(double);
constexpr double kRate = 0.01;

double initial(const std::string& name, std::int64_t i) {
  return Random(1, RandomPurpose::kSynthetic, stream_of(name)).normal(static_cast<std::uint64_t>(i));
}

/// Sum over the group, the same for any number of ranks; large enough to be clipped in some steps and not in others.
double gradient(const std::string& name, int step, std::int64_t i) {
  return (step % 3 == 0 ? 0.02 : 0.5) *
         Random(2, RandomPurpose::kSynthetic, stream_of(name)).normal(static_cast<std::uint64_t>(step * 100000 + i));
}

/// Part of rank `rank` of `ranks` in that sum.
double share(int rank, int ranks) { return 2.0 * (rank + 1) / (ranks * (ranks + 1.0)); }

struct Values {
  std::vector<double> value, m, v, average;
};
using Model = std::map<std::string, Values>;

/// The formula of spec/precision.md 7 on whole parameters.
struct Reference {
  explicit Reference(const Grouping& grouping) : specs(grouping.specs()) {
    for (const Spec& spec : specs) {
      Values& values = model[spec.name];
      const auto n = static_cast<std::size_t>(spec.shape.numel());
      for (std::size_t i = 0; i < n; ++i) values.value.push_back(initial(spec.name, static_cast<std::int64_t>(i)));
      values.m.assign(n, 0.0);
      values.v.assign(n, 0.0);
      values.average = values.value;
    }
  }

  double step(int t) {
    double norm = 0;
    for (const Spec& spec : specs) {
      for (std::int64_t i = 0; i < spec.shape.numel(); ++i) norm += std::pow(gradient(spec.name, t, i), 2);
    }
    norm = std::sqrt(norm);
    const OptimSection o = options();
    const double scale = norm > o.clip_norm ? o.clip_norm / norm : 1.0;
    for (const Spec& spec : specs) {
      Values& x = model[spec.name];
      for (std::size_t i = 0; i < x.value.size(); ++i) {
        const double g = scale * gradient(spec.name, t, static_cast<std::int64_t>(i));
        x.m[i] = o.beta1 * x.m[i] + (1 - o.beta1) * g;
        x.v[i] = o.beta2 * x.v[i] + (1 - o.beta2) * g * g;
        const double m = x.m[i] / (1 - std::pow(o.beta1, t)), v = x.v[i] / (1 - std::pow(o.beta2, t));
        x.value[i] -= kRate * (m / (std::sqrt(v) + o.eps) + (spec.decays ? o.weight_decay : 0.0) * x.value[i]);
        x.average[i] = o.ema_decay * x.average[i] + (1 - o.ema_decay) * x.value[i];
      }
    }
    return norm;
  }

  std::vector<Spec> specs;
  Model model;
};

/// What one rank holds of a grouping.
class RankModel {
 public:
  RankModel(const Grouping& grouping, comm::Communicator& world, const OptimSection& section, DType dtype = DType::kF64) {
    for (const std::vector<int>& members : grouping.groups) {
      comms_.push_back(std::ranges::count(members, world.rank()) > 0 ? world.subgroup(members, "replicas") : nullptr);
    }
    std::vector<ReplicaGroup> groups;
    for (const auto& group : comms_) groups.push_back({group.get(), {}});
    for (const Spec& spec : grouping.specs()) {
      if (comms_[spec.group] == nullptr) continue;
      auto parameter =
          std::make_unique<nn::Parameter>(spec.name, spec.shape, dtype, nn::ParameterOptions{.init = {}, .decays = spec.decays});
      groups[spec.group].parameters.push_back(parameter.get());
      parameters_.push_back(std::move(parameter));
      group_of_.push_back(spec.group);
    }
    // A buffer belongs to no optimizer.
    buffer_ = std::make_unique<nn::Parameter>("bias", Shape{4}, dtype, nn::ParameterOptions{.init = {}, .trainable = false});
    for (ReplicaGroup& group : groups) group.parameters.push_back(buffer_.get());
    std::erase_if(groups, [](const ReplicaGroup& group) { return group.comm == nullptr; });
    optimizer_ = std::make_unique<ShardedAdamW>(section, groups, world, kSmallBuckets);
    for (const auto& parameter : parameters_) {
      for (std::int64_t i = 0; i < parameter->numel(); ++i) set(parameter->value(), i, initial(parameter->name(), i));
    }
    Stream stream;
    optimizer_->reset_average(stream);
  }

  ShardedAdamW& optimizer() { return *optimizer_; }
  const std::vector<std::unique_ptr<nn::Parameter>>& parameters() const { return parameters_; }
  comm::Communicator& comm_of(std::size_t parameter) { return *comms_[group_of_[parameter]]; }

  /// Adds this rank's share of step t, in an order of its own when `order` is not 0, and tells the optimizer so.
  void backward(int t, int order = 0) {
    std::vector<std::size_t> sequence(parameters_.size());
    std::iota(sequence.begin(), sequence.end(), std::size_t{0});
    if (order != 0) {
      const Random random(static_cast<std::uint64_t>(order), RandomPurpose::kSynthetic, static_cast<std::uint64_t>(t));
      for (std::size_t i = sequence.size() - 1; i > 0; --i) std::swap(sequence[i], sequence[random.below(i, i + 1)]);
    }
    for (std::size_t k = 0; k < sequence.size(); ++k) {
      nn::Parameter& parameter = *parameters_[sequence[k]];
      comm::Communicator& group = comm_of(sequence[k]);
      const double part = share(group.rank(), group.size());
      for (std::int64_t i = 0; i < parameter.numel(); ++i) set(parameter.grad(), i, part * gradient(parameter.name(), t, i));
      // Some are left to finish().
      if (order != 0 && (k + static_cast<std::size_t>(order)) % 5 != 0) optimizer_->ready(parameter);
    }
  }

  double step(Stream& stream, int t, int order = 0) {
    optimizer_->wait_values();
    optimizer_->zero_grad();
    backward(t, order);
    optimizer_->finish();
    const ConstView norm_squared = optimizer_->grad_norm_squared(stream);
    optimizer_->begin_step(stream, kRate);
    optimizer_->step(stream, norm_squared);
    return std::sqrt(norm_squared.span<double>()[0]);
  }

  /// State of a parameter, whole on every rank of its group.
  std::vector<double> whole(StateKind kind, std::size_t parameter) {
    nn::Parameter& p = *parameters_[parameter];
    comm::Communicator& group = comm_of(parameter);
    const int root = static_cast<int>(stream_of(p.name()) % static_cast<std::uint64_t>(group.size()));
    Tensor full = Tensor::zeros(p.shape(), optimizer_->state_dtype(kind, p));
    optimizer_->gather_state(kind, p, root, full);
    group.broadcast(full.view(), root);
    return {full.as<double>(), full.as<double>() + full.numel()};
  }

  static void set(View view, std::int64_t i, double x) {
    if (view.dtype == DType::kF64) {
      view.as<double>()[i] = x;
    } else {
      view.as<float>()[i] = static_cast<float>(x);
    }
  }

 private:
  std::vector<std::unique_ptr<comm::Communicator>> comms_;
  std::vector<std::unique_ptr<nn::Parameter>> parameters_;
  std::vector<std::size_t> group_of_;
  std::unique_ptr<nn::Parameter> buffer_;
  std::unique_ptr<ShardedAdamW> optimizer_;
};

std::vector<double> value_of(nn::Parameter& parameter) {
  return {parameter.value().as<double>(), parameter.value().as<double>() + parameter.numel()};
}

double difference(const std::vector<double>& a, const std::vector<double>& b) {
  double worst = 0, largest = 0;
  for (std::size_t i = 0; i < b.size(); ++i) {
    worst = std::max(worst, std::abs(a[i] - b[i]));
    largest = std::max(largest, std::abs(b[i]));
  }
  return worst / largest;
}

const std::vector<Grouping> kGroupings = {
    {1, {{0}}},
    {2, {{0, 1}}},
    {3, {{0, 1, 2}}},
    {4, {{0, 1, 2, 3}}},
    {2, {{0, 1}, {0}, {1}}},
    {3, {{0, 1, 2}, {2, 0}, {1}}},
    {4, {{0, 1, 2, 3}, {0, 1}, {2, 3}, {0, 2}, {1, 3}, {0}, {1}, {2}, {3}}},
    {4, {{3, 1, 0}, {0, 1, 2, 3}, {2}}},
};

class Groupings : public testing::TestWithParam<std::size_t> {
 protected:
  const Grouping& grouping() const { return kGroupings[GetParam()]; }
};

TEST_P(Groupings, TwentyStepsEqualThePlainFormula) {
  constexpr int kSteps = 20;
  Reference reference(grouping());
  std::vector<double> norms;
  for (int t = 1; t <= kSteps; ++t) norms.push_back(reference.step(t));
  ASSERT_GT(*std::ranges::max_element(norms), options().clip_norm);
  ASSERT_LT(*std::ranges::min_element(norms), options().clip_norm);
  comm::run_local_group(grouping().ranks, [&](comm::Communicator& world) {
    RankModel rank(grouping(), world, options());
    Stream stream;
    for (int t = 1; t <= kSteps; ++t) {
      const double norm = rank.step(stream, t);
      EXPECT_NEAR(norm, norms[static_cast<std::size_t>(t - 1)], 1e-13 * norm);
    }
    EXPECT_EQ(rank.optimizer().num_steps(), kSteps);
    rank.optimizer().wait_values();
    for (std::size_t p = 0; p < rank.parameters().size(); ++p) {
      nn::Parameter& parameter = *rank.parameters()[p];
      const Values& expected = reference.model.at(parameter.name());
      EXPECT_LE(difference(value_of(parameter), expected.value), 1e-12) << parameter.name();
      EXPECT_LE(difference(rank.whole(StateKind::kFirstMoment, p), expected.m), 1e-12) << parameter.name();
      EXPECT_LE(difference(rank.whole(StateKind::kSecondMoment, p), expected.v), 1e-12) << parameter.name();
      EXPECT_LE(difference(rank.whole(StateKind::kAverage, p), expected.average), 1e-12) << parameter.name();
      std::vector<double> sum;
      for (std::int64_t i = 0; i < parameter.numel(); ++i) sum.push_back(gradient(parameter.name(), kSteps, i));
      EXPECT_LE(difference(rank.whole(StateKind::kGradient, p), sum), 1e-15 * 8) << parameter.name();
    }
  });
}

/// Bits of every parameter on every rank after three steps; order 0: no call of ready.
std::vector<std::vector<double>> trained(const Grouping& grouping, int order) {
  std::vector<std::vector<double>> all(static_cast<std::size_t>(grouping.ranks));
  comm::run_local_group(grouping.ranks, [&](comm::Communicator& world) {
    RankModel rank(grouping, world, options());
    Stream stream;
    std::vector<double>& mine = all[static_cast<std::size_t>(world.rank())];
    for (int t = 1; t <= 3; ++t) mine.push_back(rank.step(stream, t, order == 0 ? 0 : order + world.rank()));
    rank.optimizer().wait_values();
    for (const auto& parameter : rank.parameters()) {
      const std::vector<double> values = value_of(*parameter);
      mine.insert(mine.end(), values.begin(), values.end());
    }
  });
  return all;
}

TEST_P(Groupings, SameBitsInEveryRunAndForEveryOrderOfReadiness) {
  const std::vector<std::vector<double>> first = trained(grouping(), 0);
  EXPECT_EQ(trained(grouping(), 0), first);
  for (const int order : {1, 100, 1000}) EXPECT_EQ(trained(grouping(), order), first) << "order " << order;
}

INSTANTIATE_TEST_SUITE_P(All, Groupings, testing::Range(std::size_t{0}, kGroupings.size()));

/// Whole state by parameter name, as a checkpoint holds it.
struct SavedState {
  Model model;
  std::int64_t num_steps = 0;
};

/// Three ranks or two or one with all parameters in one group: continues `from` (or starts) for steps (first, last].
SavedState continued(int ranks, const SavedState* from, int first, int last) {
  std::vector<int> all(static_cast<std::size_t>(ranks));
  std::iota(all.begin(), all.end(), 0);
  const Grouping grouping{ranks, {all}};
  SavedState saved;
  comm::run_local_group(ranks, [&](comm::Communicator& world) {
    RankModel rank(grouping, world, options());
    ShardedAdamW& optimizer = rank.optimizer();
    if (from != nullptr) {
      optimizer.set_num_steps(from->num_steps);
      for (const auto& parameter : rank.parameters())
        std::ranges::copy(from->model.at(parameter->name()).value, parameter->value().as<double>());
      const auto set = [&](StateKind kind, std::vector<double> Values::*of) {
        for (const OwnedState& owned : optimizer.owned_state(kind)) {
          const double* whole = (from->model.at(owned.parameter->name()).*of).data();
          std::copy_n(whole + owned.begin, owned.elements.numel(), owned.elements.as<double>());
        }
      };
      set(StateKind::kFirstMoment, &Values::m);
      set(StateKind::kSecondMoment, &Values::v);
      set(StateKind::kAverage, &Values::average);
    }
    Stream stream;
    for (int t = first + 1; t <= last; ++t) rank.step(stream, t);
    optimizer.wait_values();
    for (std::size_t p = 0; p < rank.parameters().size(); ++p) {
      const Values values{value_of(*rank.parameters()[p]), rank.whole(StateKind::kFirstMoment, p),
                          rank.whole(StateKind::kSecondMoment, p), rank.whole(StateKind::kAverage, p)};
      if (world.is_root()) saved.model[rank.parameters()[p]->name()] = values;
    }
    if (world.is_root()) saved.num_steps = optimizer.num_steps();
  });
  return saved;
}

TEST(ShardedAdamW, StateMovesBetweenGroupsOfDifferentSizes) {
  const SavedState three = continued(3, nullptr, 0, 5);
  for (const int ranks : {1, 2, 4}) {
    const SavedState same = continued(ranks, &three, 5, 5);
    ASSERT_EQ(same.model.size(), three.model.size());
    for (const auto& [name, values] : three.model) {
      EXPECT_EQ(same.model.at(name).m, values.m) << name;
      EXPECT_EQ(same.model.at(name).v, values.v) << name;
      EXPECT_EQ(same.model.at(name).average, values.average) << name;
    }
    const SavedState end = continued(ranks, &three, 5, 12), straight = continued(1, nullptr, 0, 12);
    EXPECT_EQ(end.num_steps, 12);
    for (const auto& [name, values] : straight.model) {
      EXPECT_LE(difference(end.model.at(name).value, values.value), 1e-12) << name;
      EXPECT_LE(difference(end.model.at(name).average, values.average), 1e-12) << name;
    }
  }
}

TEST(ShardedAdamW, MomentsInBf16StayClose) {
  const Grouping grouping{2, {{0, 1}}};
  OptimSection half = options();
  half.moments = MomentType::kBf16;
  Reference reference(grouping);
  constexpr int kSteps = 20;
  for (int t = 1; t <= kSteps; ++t) reference.step(t);
  comm::run_local_group(grouping.ranks, [&](comm::Communicator& world) {
    RankModel rank(grouping, world, half, DType::kF32);
    Stream stream;
    for (int t = 1; t <= kSteps; ++t) rank.step(stream, t);
    rank.optimizer().wait_values();
    double worst = 0, squares = 0, moved = 0;
    for (const auto& parameter : rank.parameters()) {
      EXPECT_EQ(rank.optimizer().state_dtype(StateKind::kFirstMoment, *parameter), DType::kBf16);
      EXPECT_EQ(rank.optimizer().state_dtype(StateKind::kAverage, *parameter), DType::kF32);
      Tensor m = Tensor::zeros(parameter->shape(), DType::kBf16);
      rank.optimizer().gather_state(StateKind::kFirstMoment, *parameter, 0, m);
      const Values& expected = reference.model.at(parameter->name());
      for (std::int64_t i = 0; i < parameter->numel(); ++i) {
        const auto k = static_cast<std::size_t>(i);
        const double error = parameter->value().as<float>()[i] - expected.value[k];
        worst = std::max(worst, std::abs(error));
        squares += error * error;
        moved += std::pow(expected.value[k] - initial(parameter->name(), i), 2);
        // The largest first moments are about 0.1; a bf16 is off by 2^-9 of it, some of that from earlier steps.
        if (world.is_root()) {
          EXPECT_NEAR(to_float(m.as<Bf16>()[i]), expected.m[k], 0.1 / 64);
        }
      }
    }
    EXPECT_GT(worst, 1e-6);
    EXPECT_LT(worst, 0.1 * kRate);
    EXPECT_LT(std::sqrt(squares / moved), 5e-3);
  });
}

TEST(ShardedAdamW, MomentsAreSharedOut) {
  // Memory of moments and average on each rank: a third, plus padding.
  const Grouping alone{1, {{0}}}, three{3, {{0, 1, 2}}};
  const auto bytes = [](const Grouping& grouping, const OptimSection& section) {
    std::size_t before = 0, after = 0;
    comm::run_local_group(grouping.ranks, [&](comm::Communicator& world) {
      if (world.is_root()) before = memory_stats(kCpu).live_bytes;
      world.barrier();
      const RankModel rank(grouping, world, section);
      world.barrier();
      if (world.is_root()) after = memory_stats(kCpu).live_bytes;
      world.barrier();
    });
    return static_cast<double>(after - before) / grouping.ranks;
  };
  OptimSection without = options(), with = options();
  without.ema_decay = 0;
  const double average_alone = bytes(alone, with) - bytes(alone, without),
               average_third = bytes(three, with) - bytes(three, without);
  EXPECT_GT(average_alone, 0);
  EXPECT_LT(average_third, 0.6 * average_alone);
}

// Gradients of the step before are gone also where no share came, whether the optimizer was told that none will or not.
TEST(ShardedAdamW, AParameterWithoutAShareHasNoGradient) {
  comm::SingleCommunicator world;
  nn::Parameter a("a", Shape{5}, DType::kF64, {}), b("b", Shape{3}, DType::kF64, {});
  ShardedAdamW optimizer(options(), {{&world, {&a, &b}}}, world);
  Stream stream;
  for (const double share : {2.0, 0.0}) {
    optimizer.zero_grad();
    for (nn::Parameter* parameter : {&a, &b}) {
      if (share == 0) continue;
      for (double& value : parameter->grad().span<double>()) value = share;
    }
    optimizer.ready(a);
    optimizer.finish();
    EXPECT_EQ(optimizer.grad_norm_squared(stream).span<double>()[0], 8 * share * share);
  }
}

TEST(ShardedAdamW, MisuseIsRefused) {
  comm::SingleCommunicator world;
  nn::Parameter a("a", Shape{5}, DType::kF64, {}), b("b", Shape{5}, DType::kF32, {});
  EXPECT_THROW(ShardedAdamW(options(), {{&world, {&a}}, {&world, {&a}}}, world), ContractError);
  EXPECT_THROW(ShardedAdamW(options(), {{&world, {&a, &b}}}, world), ContractError);
  nn::Parameter c("c", Shape{5}, DType::kF64, {}), other("other", Shape{5}, DType::kF64, {});
  ShardedAdamW optimizer(options(), {{&world, {&c}}}, world);
  Stream stream;
  optimizer.zero_grad();
  EXPECT_THROW(optimizer.grad_norm_squared(stream), ContractError);
  const Tensor one = Tensor::zeros({1}, DType::kF64);
  EXPECT_THROW(optimizer.step(stream, one), ContractError);
  EXPECT_THROW(optimizer.ready(other), ContractError);
  optimizer.ready(c);
  EXPECT_THROW(optimizer.ready(c), ContractError);
  optimizer.finish();
  EXPECT_THROW(optimizer.finish(), ContractError);
  EXPECT_THROW(optimizer.ready(c), ContractError);
  Tensor full = Tensor::zeros({4}, DType::kF64);
  EXPECT_THROW(optimizer.gather_state(StateKind::kFirstMoment, c, 0, full), ContractError);
}

}  // namespace
}  // namespace hadal::optim
