#include "tests/checkpoint/layouts.h"

#include <cmath>
#include <cstring>

#include "checkpoint/assignment.h"
#include "core/error.h"

namespace hadal::checkpoint::test_layouts {
namespace {

constexpr std::int64_t kHidden = 12, kHeads = 24, kVocab = 48, kExperts = 12, kWidth = 24, kLayers = 6;
constexpr std::uint64_t kWeights = 1, kFirst = 2, kSecond = 3;

nn::ParameterOptions options(nn::Replication replication, bool trainable = true) {
  return {.init = nn::Init::normal(0.5), .replication = replication, .trainable = trainable};
}

}  // namespace

std::string Layout::str() const { return fmt::format("pp{} dp{} tp{} ep{} etp{}", pp, dp, tp, ep, etp); }

const std::vector<Layout>& twelve_layouts() {
  static const std::vector<Layout> layouts = {
      {},
      {.dp = 2},
      {.tp = 2, .etp = 2},
      {.pp = 2},
      {.dp = 3, .ep = 3},
      {.dp = 4, .ep = 2},
      {.tp = 4, .ep = 4},
      {.pp = 3, .tp = 2, .ep = 2},
      {.dp = 2, .tp = 3, .ep = 3, .etp = 2},
      {.pp = 2, .dp = 2, .tp = 2, .ep = 2},
      {.dp = 4, .tp = 2, .ep = 4, .etp = 2},
      {.pp = 2, .dp = 4, .ep = 2, .etp = 2},
  };
  return layouts;
}

RankModel::RankModel(const Layout& layout, int world_rank) : layout_(layout) {
  const int in_stage = world_rank % (layout.dp * layout.tp);
  stage_ = world_rank / (layout.dp * layout.tp);
  dp_ = in_stage / layout.tp;
  tp_ = in_stage % layout.tp;
  edp_ = in_stage / (layout.ep * layout.etp);
  ep_ = in_stage / layout.etp % layout.ep;
  etp_ = in_stage % layout.etp;
  const std::int64_t tp = layout.tp;
  if (stage_ == 0) {
    add("embed", Shape{kVocab / tp, kHidden}, DType::kF32, options(nn::Replication::kTensor),
        {nn::sliced_part("model.embed_tokens.weight", Shape{kVocab, kHidden}, 0, tp_ * kVocab / tp, kVocab / tp, 0)});
  }
  for (std::int64_t layer = stage_ * kLayers / layout.pp; layer < (stage_ + 1) * kLayers / layout.pp; ++layer) {
    add_layer(fmt::format("model.layers.{}.", layer));
  }
  if (stage_ == layout.pp - 1) {
    add("norm", Shape{kHidden}, DType::kF64, options(nn::Replication::kDense),
        {nn::whole_part("model.norm.weight", Shape{kHidden}, 0)});
  }
}

void RankModel::add(std::string name, Shape shape, DType dtype, nn::ParameterOptions options,
                    std::vector<nn::LogicalPart> parts) {
  Held held;
  held.parameter = std::make_unique<nn::Parameter>(std::move(name), shape, dtype, options, std::move(parts));
  switch (options.replication) {
    case nn::Replication::kDense:
      held.replica = dp_ * layout_.tp + tp_;
      held.replicas = layout_.dp * layout_.tp;
      break;
    case nn::Replication::kTensor:
      held.replica = dp_;
      held.replicas = layout_.dp;
      break;
    case nn::Replication::kExpert:
      held.replica = edp_;
      held.replicas = layout_.dp * layout_.tp / (layout_.ep * layout_.etp);
      break;
  }
  held_.push_back(std::move(held));
}

void RankModel::add_layer(const std::string& prefix) {
  const std::int64_t tp = layout_.tp, heads = kHeads / tp, width = kWidth / tp;
  const auto tensor = options(nn::Replication::kTensor);
  add(prefix + "norm", Shape{kHidden}, DType::kF64, options(nn::Replication::kDense),
      {nn::whole_part(prefix + "norm.weight", Shape{kHidden}, 0)});
  add(prefix + "q", Shape{heads, kHidden}, DType::kF32, tensor,
      {nn::sliced_part(prefix + "q.weight", Shape{kHeads, kHidden}, 0, tp_ * heads, heads, 0)});
  add(prefix + "o", Shape{kHidden, heads}, DType::kF32, tensor,
      {nn::sliced_part(prefix + "o.weight", Shape{kHidden, kHeads}, 1, tp_ * heads, heads, 0)});
  // Three branches of every head: a rank's heads are three slices of one tensor.
  std::vector<nn::LogicalPart> gates;
  for (std::int64_t branch = 0; branch < 3; ++branch) {
    gates.push_back(nn::sliced_part(prefix + "gate.weight", Shape{3 * kHeads, kHidden}, 0, branch * kHeads + tp_ * heads, heads,
                                    branch * heads * kHidden));
  }
  add(prefix + "gates", Shape{3 * heads, kHidden}, DType::kF32, tensor, std::move(gates));
  add(prefix + "gate_up", Shape{2 * width, kHidden}, DType::kF32, tensor,
      {nn::sliced_part(prefix + "gate_proj.weight", Shape{kWidth, kHidden}, 0, tp_ * width, width, 0),
       nn::sliced_part(prefix + "up_proj.weight", Shape{kWidth, kHidden}, 0, tp_ * width, width, width * kHidden)});
  add(prefix + "router_bias", Shape{kExperts}, DType::kF32, options(nn::Replication::kDense, false),
      {nn::whole_part(prefix + "bias", Shape{kExperts}, 0)});
  add_experts(prefix);
}

void RankModel::add_experts(const std::string& prefix) {
  const std::int64_t count = kExperts / layout_.ep, width = kWidth / layout_.etp;
  std::vector<nn::LogicalPart> up, down;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::string name = fmt::format("{}experts.{}.", prefix, ep_ * count + i);
    up.push_back(nn::sliced_part(name + "up.weight", Shape{kWidth, 5}, 0, etp_ * width, width, i * width * 5));
    down.push_back(nn::sliced_part(name + "down.weight", Shape{5, kWidth}, 1, etp_ * width, width, i * width * 5));
  }
  add(prefix + "experts.up", Shape{count, width, 5}, DType::kF32, options(nn::Replication::kExpert), std::move(up));
  add(prefix + "experts.down", Shape{count, 5, width}, DType::kF32, options(nn::Replication::kExpert), std::move(down));
}

void RankModel::fill(std::uint64_t seed) {
  for (Held& held : held_) held.parameter->initialize(seed);
}

void RankModel::spoil() {
  for (Held& held : held_) std::memset(held.parameter->value().data, 0xff, held.parameter->value().bytes());
}

std::vector<ParameterValue> RankModel::all() {
  std::vector<ParameterValue> values;
  for (Held& held : held_) values.push_back({held.parameter.get(), held.parameter->value()});
  return values;
}

std::vector<ParameterValue> RankModel::chosen() {
  std::vector<ParameterValue> values;
  for (const auto replication : {nn::Replication::kDense, nn::Replication::kTensor, nn::Replication::kExpert}) {
    std::vector<Held*> group;
    std::vector<std::int64_t> bytes;
    for (Held& held : held_) {
      if (held.parameter->options().replication != replication) continue;
      group.push_back(&held);
      bytes.push_back(static_cast<std::int64_t>(held.parameter->value().bytes()));
    }
    if (group.empty()) continue;
    const std::vector<int> writers = assign_evenly(bytes, group[0]->replicas);
    for (std::size_t i = 0; i < group.size(); ++i) {
      if (writers[i] == group[i]->replica) values.push_back({group[i]->parameter.get(), group[i]->parameter->value()});
    }
  }
  return values;
}

std::vector<ParameterValue> RankModel::shares() {
  std::vector<ParameterValue> values;
  for (Held& held : held_) {
    if (!held.parameter->options().trainable) continue;
    const std::int64_t numel = held.parameter->numel();
    const std::int64_t begin = numel * held.replica / held.replicas, end = numel * (held.replica + 1) / held.replicas;
    values.push_back({held.parameter.get(), held.parameter->value().reshape(Shape{numel}).rows(begin, end), begin});
  }
  return values;
}

std::string RankModel::first_difference(const std::vector<ParameterValue>& a, const std::vector<ParameterValue>& b) {
  HADAL_CHECK_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (a[i].value.bytes() != b[i].value.bytes() || std::memcmp(a[i].value.data, b[i].value.data, a[i].value.bytes()) != 0)
      return a[i].parameter->name();
  }
  return "";
}

void save_model(const Layout& layout, comm::Communicator& world, const std::filesystem::path& dir, std::int64_t step) {
  RankModel weights(layout, world.rank()), first(layout, world.rank()), second(layout, world.rank());
  weights.fill(kWeights);
  first.fill(kFirst);
  second.fill(kSecond);
  CheckpointWriter writer(dir, step, world, 64 << 10);
  save_values(writer, weights.chosen(), "");
  save_values(writer, first.shares(), "optim.m/");
  save_values(writer, second.shares(), "optim.v/");
  writer.state().set("saved_by_rank", world.rank());
  writer.commit();
}

std::string load_model(const Layout& layout, comm::Communicator& world, const std::filesystem::path& step_dir) {
  const CheckpointReader reader = CheckpointReader::open(step_dir, world);
  std::string wrong;
  for (const std::uint64_t seed : {kWeights, kFirst, kSecond}) {
    RankModel expected(layout, world.rank()), loaded(layout, world.rank());
    expected.fill(seed);
    loaded.spoil();
    const auto values = seed == kWeights ? loaded.all() : loaded.shares();
    const char* prefix = seed == kWeights ? "" : seed == kFirst ? "optim.m/" : "optim.v/";
    load_values(reader, values, prefix, {}, world);
    const std::string difference = RankModel::first_difference(values, seed == kWeights ? expected.all() : expected.shares());
    if (!difference.empty()) wrong += fmt::format(" rank {}: {}{}", world.rank(), prefix, difference);
  }
  if (reader.state().integer("saved_by_rank") != 0) wrong += " state";
  return wrong;
}

}  // namespace hadal::checkpoint::test_layouts
