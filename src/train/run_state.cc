#include "train/run_state.h"

#include <algorithm>
#include <charconv>
#include <set>

#include "checkpoint/checkpoint_reader.h"
#include "checkpoint/checkpoint_writer.h"
#include "checkpoint/embedded_config.h"
#include "checkpoint/parameters.h"
#include "checkpoint/store.h"
#include "config/write.h"
#include "core/error.h"
#include "core/log.h"

namespace hadal::train {
namespace {

using checkpoint::ParameterValue;

std::vector<ParameterValue> first_moments(optim::AdamW& optimizer) {
  std::vector<ParameterValue> values;
  for (optim::AdamW::Slot& slot : optimizer.slots()) values.push_back({slot.parameter, slot.m});
  return values;
}

std::vector<ParameterValue> second_moments(optim::AdamW& optimizer) {
  std::vector<ParameterValue> values;
  for (optim::AdamW::Slot& slot : optimizer.slots()) values.push_back({slot.parameter, slot.v});
  return values;
}

std::vector<ParameterValue> averages(optim::AdamW& optimizer) {
  std::vector<ParameterValue> values;
  for (optim::AdamW::Slot& slot : optimizer.slots()) {
    if (slot.average.defined()) values.push_back({slot.parameter, slot.average});
  }
  return values;
}

/// A run may start or stop to keep averages when it resumes.
void restore_averages(const checkpoint::CheckpointReader& reader, optim::AdamW& optimizer) {
  const std::vector<ParameterValue> values = averages(optimizer);
  if (values.empty()) return;
  const bool stored = std::ranges::any_of(reader.tensors(), [](const auto& tensor) { return tensor.name.starts_with("ema/"); });
  if (stored) {
    checkpoint::load_values(reader, values, "ema/");
  } else {
    log_info("{}: holds no moving average; it starts from the weights", reader.path().string());
    optimizer.reset_average();
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

/// Whether every stored weight that the model does not want belongs to MTP modules beyond its own.
bool only_mtp_is_extra(const checkpoint::CheckpointReader& reader, model::Model& model) {
  const ModelSection& shape = model.options().shape;
  std::set<std::string_view> wanted;
  const nn::ParameterList parameters = model.parameters();
  for (const nn::Parameter* parameter : parameters) {
    for (const nn::LogicalPart& part : parameter->parts()) wanted.insert(part.name);
  }
  return std::ranges::all_of(reader.tensors(), [&](const auto& tensor) {
    const bool weight = tensor.name.find('/') == std::string::npos;
    return !weight || wanted.contains(tensor.name) || is_mtp_name(tensor.name, shape.num_layers + shape.mtp.depth);
  });
}

void write_checkpoint(const Config& config, const RunState& state, model::Model& model, optim::AdamW& optimizer,
                      const data::Sampler& sampler) {
  const std::filesystem::path directory = std::filesystem::path(config.run.dir) / "checkpoints";
  checkpoint::CheckpointWriter writer(directory, state.step);
  checkpoint::save_parameters(writer, model.parameters());
  checkpoint::save_values(writer, first_moments(optimizer), "optim.m/");
  checkpoint::save_values(writer, second_moments(optimizer), "optim.v/");
  checkpoint::save_values(writer, averages(optimizer), "ema/");
  writer.state().set("step", state.step);
  writer.state().set("tokens", state.tokens);
  writer.state().set("next_sample", state.next_sample);
  writer.state().set("optimizer_steps", optimizer.num_steps());
  writer.state().set("sample_order", sampler.fingerprint().hex());
  writer.state().set("seed", config.run.seed);
  writer.state().set("config", to_yaml(config));
  writer.state().set("config_hash", config_hash(config).hex());
  writer.commit();
  checkpoint::keep_newest(directory, config.checkpoint.keep_last);
}

}  // namespace

std::string save_run(const Config& config, const RunState& state, model::Model& model, optim::AdamW& optimizer, const data::Sampler& sampler,
                     comm::Communicator& world, MetricsWriter* metrics) {
  std::string failure;
  if (world.is_root()) {
    try {
      if (metrics != nullptr) metrics->sync();
      write_checkpoint(config, state, model, optimizer, sampler);
    } catch (const IoError& error) {
      failure = error.what();
    } catch (const std::filesystem::filesystem_error& error) {
      failure = error.what();
    }
  }
  world.broadcast(failure, 0);
  return failure;
}

std::optional<RunState> restore_run(const Config& config, model::Model& model, optim::AdamW& optimizer,
                                    const data::Sampler& sampler, comm::Communicator& world) {
  // Rank 0 alone judges the candidates, since judging sets damaged ones aside.
  std::optional<checkpoint::CheckpointReader> reader;
  std::string path;
  if (world.is_root()) {
    reader = checkpoint::open_newest_valid(std::filesystem::path(config.run.dir) / "checkpoints");
    if (reader) path = reader->path().string();
  }
  world.broadcast(path, 0);
  if (path.empty()) return std::nullopt;
  if (!reader) reader = checkpoint::CheckpointReader::open(path, checkpoint::Check::kManifest);
  if (reader->state().has(checkpoint::kWeightsOnlyKey)) {
    throw UserError("{}: holds weights only and cannot be continued; choose another run.dir, with run.init_from={}", path, path);
  }
  sampler.check_fingerprint(reader->state().text("sample_order"));
  checkpoint::load_parameters(*reader, model.parameters());
  checkpoint::load_values(*reader, first_moments(optimizer), "optim.m/");
  checkpoint::load_values(*reader, second_moments(optimizer), "optim.v/");
  restore_averages(*reader, optimizer);
  optimizer.set_num_steps(reader->state().integer("optimizer_steps"));
  return RunState{.step = reader->state().integer("step"),
                  .tokens = reader->state().integer("tokens"),
                  .next_sample = reader->state().unsigned_integer("next_sample")};
}

void load_weights(const std::filesystem::path& checkpoint_path, model::Model& model) {
  const auto reader = checkpoint::CheckpointReader::open(checkpoint::find_checkpoint(checkpoint_path));
  const std::int64_t num_layers = model.options().shape.num_layers;
  nn::ParameterList present, absent;
  for (nn::Parameter* parameter : model.parameters()) {
    const std::string& name = parameter->parts().front().name;
    (is_mtp_name(name, num_layers) && reader.find(name) == nullptr ? absent : present).push_back(parameter);
  }
  if (!absent.empty()) log_warning("{}: has no tensors of {} MTP parameters; they keep their initial values", reader.path().string(), absent.size());
  checkpoint::load_parameters(reader, present, "", {.convert_dtype = true, .allow_extra = only_mtp_is_extra(reader, model)});
}

}  // namespace hadal::train
