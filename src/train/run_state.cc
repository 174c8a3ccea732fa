#include "train/run_state.h"

#include "checkpoint/checkpoint_reader.h"
#include "checkpoint/checkpoint_writer.h"
#include "checkpoint/embedded_config.h"
#include "checkpoint/parameters.h"
#include "checkpoint/store.h"
#include "config/write.h"
#include "core/error.h"

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
  checkpoint::load_values(*reader, averages(optimizer), "ema/");
  optimizer.set_num_steps(reader->state().integer("optimizer_steps"));
  return RunState{.step = reader->state().integer("step"),
                  .tokens = reader->state().integer("tokens"),
                  .next_sample = reader->state().unsigned_integer("next_sample")};
}

void load_weights(const std::filesystem::path& checkpoint_path, model::Model& model) {
  const auto reader = checkpoint::CheckpointReader::open(checkpoint::find_checkpoint(checkpoint_path));
  checkpoint::load_parameters(reader, model.parameters(), "", {.convert_dtype = true});
}

}  // namespace hadal::train
