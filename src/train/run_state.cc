#include "train/run_state.h"

#include <algorithm>
#include <charconv>
#include <set>

#include "checkpoint/assignment.h"
#include "checkpoint/checkpoint_reader.h"
#include "checkpoint/checkpoint_writer.h"
#include "checkpoint/embedded_config.h"
#include "checkpoint/parameters.h"
#include "checkpoint/store.h"
#include "checkpoint/together.h"
#include "config/write.h"
#include "core/copy.h"
#include "core/error.h"
#include "core/log.h"

namespace hadal::train {
namespace {

using checkpoint::ParameterValue;
using optim::StateKind;

std::filesystem::path checkpoints_of(const Config& config) { return std::filesystem::path(config.run.dir) / "checkpoints"; }

/// The tensors of a run as a rank holds them, by the prefix of their names.
struct RunTensors {
  std::vector<ParameterValue> weights;  ///< with the balancing biases
  std::vector<ParameterValue> masters, first_moments, second_moments, averages;  ///< this rank's shares
};

std::vector<ParameterValue> owned_state(optim::ShardedAdamW& optimizer, StateKind kind) {
  std::vector<ParameterValue> values;
  for (const optim::OwnedState& owned : optimizer.owned_state(kind)) values.push_back({owned.parameter, owned.elements, owned.begin});
  return values;
}

RunTensors tensors_of(model::DistributedModel& model, optim::ShardedAdamW& optimizer) {
  RunTensors tensors;
  for (nn::Parameter* parameter : model.parameters()) tensors.weights.push_back({parameter, parameter->value()});
  tensors.masters = owned_state(optimizer, StateKind::kMaster);
  tensors.first_moments = owned_state(optimizer, StateKind::kFirstMoment);
  tensors.second_moments = owned_state(optimizer, StateKind::kSecondMoment);
  tensors.averages = owned_state(optimizer, StateKind::kAverage);
  return tensors;
}

/// Of the weights and biases here, those that this rank writes: the copies of a replica group share the work. A parameter with a master
/// is that: its owners write it.
std::vector<ParameterValue> own_weights(model::DistributedModel& model, const optim::ShardedAdamW& optimizer, std::vector<ParameterValue> masters) {
  std::vector<ParameterValue> own = std::move(masters);
  for (const model::ReplicaGroup& group : model.replica_groups()) {
    nn::ParameterList parameters;
    std::vector<std::int64_t> bytes;
    for (nn::Parameter* parameter : group.parameters) {
      if (optimizer.has_master(*parameter)) continue;
      parameters.push_back(parameter);
      bytes.push_back(static_cast<std::int64_t>(parameter->value().bytes()));
    }
    const std::vector<int> rank_of = checkpoint::assign_evenly(bytes, group.ranks->size());
    for (std::size_t i = 0; i < rank_of.size(); ++i) {
      if (rank_of[i] == group.ranks->rank()) own.push_back({parameters[i], parameters[i]->value()});
    }
  }
  for (nn::Parameter* buffer : model.owned_buffers()) own.push_back({buffer, buffer->value()});
  return own;
}

/// Moments of another dtype are refused, never rounded.
void check_moments(const checkpoint::CheckpointReader& reader, const optim::ShardedAdamW& optimizer) {
  const nn::Parameter& parameter = *optimizer.parameters().front();
  const DType wanted = optimizer.state_dtype(StateKind::kFirstMoment, parameter);
  const DType stored = reader.at("optim.m/" + parameter.parts().front().name).dtype;
  if (stored != wanted && (stored == DType::kBf16 || wanted == DType::kBf16)) {
    throw UserError("{}: its moments are {}, optim.moments of this config makes them {}; a run keeps the optim.moments it was started with",
                    reader.path().string(), name_of(stored), name_of(wanted));
  }
}

/// A run may start or stop to keep averages when it resumes.
void restore_averages(const checkpoint::CheckpointReader& reader, const std::vector<ParameterValue>& averages, optim::ShardedAdamW& optimizer,
                      comm::Communicator& world) {
  if (!optimizer.has(StateKind::kAverage)) return;
  const bool stored = std::ranges::any_of(reader.tensors(), [](const auto& tensor) { return tensor.name.starts_with("ema/"); });
  if (stored) {
    checkpoint::load_values(reader, averages, "ema/", {}, world);
  } else {
    if (world.is_root()) log_info("{}: holds no moving average; it starts from the weights", reader.path().string());
    Stream stream = stream_of(optimizer.parameters().front()->device());
    optimizer.reset_average(stream);
  }
}

/// "model.layers.N..." with N >= num_layers: a tensor of an MTP module.
bool is_mtp_name(std::string_view name, std::int64_t num_layers) {
  constexpr std::string_view kPrefix = "model.layers.";
  if (!name.starts_with(kPrefix)) return false;
  std::int64_t layer = -1;
  std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), layer);
  return layer >= num_layers;
}

/// Whether every stored weight that no rank wants belongs to MTP modules beyond the model's own. Collective.
bool only_mtp_is_extra(const checkpoint::CheckpointReader& reader, model::DistributedModel& model, comm::Communicator& world) {
  std::string mine;
  for (const nn::Parameter* parameter : model.parameters()) {
    for (const nn::LogicalPart& part : parameter->parts()) mine += part.name + '\n';
  }
  std::set<std::string, std::less<>> wanted;
  for (const std::string& names : world.all_gather(mine)) {
    for (std::size_t begin = 0; begin < names.size(); begin = names.find('\n', begin) + 1) {
      wanted.insert(names.substr(begin, names.find('\n', begin) - begin));
    }
  }
  const ModelSection& shape = model.options().shape;
  return std::ranges::all_of(reader.tensors(), [&](const auto& tensor) {
    const bool weight = tensor.name.find('/') == std::string::npos;
    return !weight || wanted.contains(tensor.name) || is_mtp_name(tensor.name, shape.num_layers + shape.mtp.depth);
  });
}

void write_checkpoint(const Config& config, const RunState& state, model::DistributedModel& model, optim::ShardedAdamW& optimizer,
                      const data::Sampler& sampler, comm::Communicator& world) {
  const RunTensors tensors = tensors_of(model, optimizer);
  checkpoint::CheckpointWriter writer(checkpoints_of(config), state.step, world);
  checkpoint::save_values(writer, own_weights(model, optimizer, tensors.masters), "");
  checkpoint::save_values(writer, tensors.first_moments, "optim.m/");
  checkpoint::save_values(writer, tensors.second_moments, "optim.v/");
  checkpoint::save_values(writer, tensors.averages, "ema/");
  writer.state().set("step", state.step);
  writer.state().set("tokens", state.tokens);
  writer.state().set("next_sample", state.next_sample);
  writer.state().set("optimizer_steps", optimizer.num_steps());
  writer.state().set("sample_order", sampler.fingerprint().hex());
  writer.state().set("seed", config.run.seed);
  writer.state().set("config", to_yaml(config));
  writer.state().set("config_hash", config_hash(config).hex());
  writer.commit();
}

}  // namespace

std::string save_run(const Config& config, const RunState& state, model::DistributedModel& model, optim::ShardedAdamW& optimizer,
                     const data::Sampler& sampler, comm::Communicator& world, MetricsWriter* metrics) {
  optimizer.wait_values();
  try {
    checkpoint::together(world, [&] {
      if (metrics != nullptr) metrics->sync();
    });
    write_checkpoint(config, state, model, optimizer, sampler, world);
    checkpoint::together(world, [&] {
      if (world.is_root()) checkpoint::keep_newest(checkpoints_of(config), config.checkpoint.keep_last);
    });
  } catch (const IoError& error) {
    return error.what();
  }
  return "";
}

std::optional<RunState> restore_run(const Config& config, model::DistributedModel& model, optim::ShardedAdamW& optimizer,
                                    const data::Sampler& sampler, comm::Communicator& world) {
  const std::optional<checkpoint::CheckpointReader> reader = checkpoint::open_newest_valid(checkpoints_of(config), world);
  if (!reader) return std::nullopt;
  if (reader->state().has(checkpoint::kWeightsOnlyKey)) {
    const std::string path = reader->path().string();
    throw UserError("{}: holds weights only and cannot be continued; choose another run.dir, with run.init_from={}", path, path);
  }
  sampler.check_fingerprint(reader->state().text("sample_order"));
  const RunTensors tensors = tensors_of(model, optimizer);
  checkpoint::load_values(*reader, tensors.weights, "", {}, world);
  checkpoint::load_values(*reader, tensors.masters, "", {.allow_extra = true}, world);
  check_moments(*reader, optimizer);
  checkpoint::load_values(*reader, tensors.first_moments, "optim.m/", {}, world);
  checkpoint::load_values(*reader, tensors.second_moments, "optim.v/", {}, world);
  restore_averages(*reader, tensors.averages, optimizer, world);
  optimizer.set_num_steps(reader->state().integer("optimizer_steps"));
  return RunState{.step = reader->state().integer("step"),
                  .tokens = reader->state().integer("tokens"),
                  .next_sample = reader->state().unsigned_integer("next_sample")};
}

void load_weights(const std::filesystem::path& checkpoint_path, model::DistributedModel& model, optim::ShardedAdamW& optimizer,
                  comm::Communicator& world) {
  std::filesystem::path step_dir;
  checkpoint::together(world, [&] {
    if (world.is_root()) step_dir = checkpoint::find_checkpoint(checkpoint_path);
  });
  const auto reader = checkpoint::CheckpointReader::open(step_dir, world, checkpoint::Check::kManifest);
  const std::int64_t num_layers = model.options().shape.num_layers;
  std::vector<ParameterValue> present;
  std::int64_t absent = 0;
  for (nn::Parameter* parameter : model.parameters()) {
    const std::string& name = parameter->parts().front().name;
    if (is_mtp_name(name, num_layers) && reader.find(name) == nullptr) {
      ++absent;
    } else {
      present.push_back({parameter, parameter->value()});
    }
  }
  if (absent > 0) log_warning("{}: has no tensors of {} MTP parameters; they keep their initial values", reader.path().string(), absent);
  checkpoint::load_values(reader, present, "", {.convert_dtype = true, .allow_extra = only_mtp_is_extra(reader, model, world)}, world);
  std::vector<ParameterValue> masters = owned_state(optimizer, StateKind::kMaster);
  std::erase_if(masters, [&](const ParameterValue& master) { return reader.find(master.parameter->parts().front().name) == nullptr; });
  checkpoint::load_values(reader, masters, "", {.convert_dtype = true, .allow_extra = true}, world);
}

}  // namespace hadal::train
