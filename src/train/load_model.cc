#include "train/load_model.h"

#include "checkpoint/checkpoint_reader.h"
#include "checkpoint/embedded_config.h"
#include "checkpoint/parameters.h"
#include "checkpoint/store.h"
#include "comm/single.h"
#include "config/validate.h"
#include "core/device_backend.h"
#include "core/log.h"
#include "train/run_device.h"

namespace hadal::train {
namespace {

/// Weights with the moving average in place of every trained value.
void load_average(const checkpoint::CheckpointReader& reader, const nn::ParameterList& parameters) {
  std::vector<checkpoint::ParameterValue> values;
  nn::ParameterList buffers;
  for (nn::Parameter* parameter : parameters) {
    if (parameter->options().trainable) {
      values.push_back({parameter, parameter->value()});
    } else {
      buffers.push_back(parameter);
    }
  }
  checkpoint::load_values(reader, values, "ema/", {.convert_dtype = true});
  checkpoint::load_parameters(reader, buffers, "", {.convert_dtype = true, .allow_extra = true});
}

std::optional<tokenizer::Tokenizer> open_tokenizer(const Config& config, const LoadModelOptions& options) {
  if (!options.tokenizer.empty()) return tokenizer::Tokenizer::load(options.tokenizer);
  if (config.data.tokenizer.empty()) return std::nullopt;
  if (!std::filesystem::exists(config.data.tokenizer)) {
    log_warning("the tokenizer {} of this run is not there; give --tokenizer DIR", config.data.tokenizer);
    return std::nullopt;
  }
  return tokenizer::Tokenizer::load(config.data.tokenizer);
}

void load_parameters(const checkpoint::CheckpointReader& reader, const nn::ParameterList& parameters, const LoadModelOptions& options) {
  if (options.average) {
    load_average(reader, parameters);
  } else {
    checkpoint::load_parameters(reader, parameters, "", {.convert_dtype = true});
  }
}

struct Opened {
  std::filesystem::path path;
  checkpoint::CheckpointReader reader;
  Config config;
};

/// Device and dtype of the computation, in the config.
void choose_device(Config& config, const LoadModelOptions& options) {
  if (options.device) {
    config.run.device = *options.device;
  } else if (config.run.device == DeviceChoice::kCuda && num_cuda_devices() == 0) {
    log_info("this model was trained on a CUDA device; none is here, so the CPU computes");
    config.run.device = DeviceChoice::kHost;
  }
  const bool cuda = config.run.device == DeviceChoice::kCuda;
  if (options.compute) {
    config.precision.compute = *options.compute;
  } else if (config.precision.compute == (cuda ? ComputeType::kF64 : ComputeType::kBf16)) {
    config.precision.compute = ComputeType::kF32;
  }
  config::validate_config(config);
}

Opened open(const std::filesystem::path& path, const LoadModelOptions& options) {
  const std::filesystem::path step = checkpoint::find_checkpoint(path);
  if (step != path) log_info("checkpoint: {}", step.string());
  auto reader = checkpoint::CheckpointReader::open(step, checkpoint::Check::kManifest);
  Config config = checkpoint::config_of(reader);
  choose_device(config, options);
  return {step, std::move(reader), std::move(config)};
}

}  // namespace

LoadedModel load_model(const std::filesystem::path& path, const LoadModelOptions& options) {
  Opened opened = open(path, options);
  LoadedModel result{.config = std::move(opened.config), .checkpoint = opened.path, .model = nullptr, .tokenizer = std::nullopt};
  comm::SingleCommunicator alone;
  result.model = std::make_unique<model::Model>(model::model_options(result.config, run_device(result.config, alone)));
  load_parameters(opened.reader, result.model->parameters(), options);
  result.tokenizer = open_tokenizer(result.config, options);
  return result;
}

LoadedRun load_run(const std::filesystem::path& path, comm::Communicator& world, const LoadModelOptions& options) {
  Opened opened = open(path, options);
  LoadedRun result{.config = std::move(opened.config), .run = nullptr, .tokenizer = std::nullopt};
  result.config.parallel = {};
  result.run = std::make_unique<RunModel>(result.config, model::model_options(result.config, run_device(result.config, world)), world);
  load_parameters(opened.reader, result.run->model().parameters(), options);
  result.tokenizer = open_tokenizer(result.config, options);
  return result;
}

const tokenizer::Tokenizer& required_tokenizer(const LoadedModel& loaded) {
  if (!loaded.tokenizer) {
    throw UserError("{}: its config names no tokenizer that is there; give --tokenizer DIR", loaded.checkpoint.string());
  }
  return *loaded.tokenizer;
}

}  // namespace hadal::train
