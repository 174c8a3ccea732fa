#include "train/load_model.h"

#include "checkpoint/checkpoint_reader.h"
#include "checkpoint/parameters.h"
#include "checkpoint/store.h"
#include "config/load.h"
#include "core/log.h"

namespace hadal::train {
namespace {

/// Weights with the moving average in place of every trained value.
void load_average(const checkpoint::CheckpointReader& reader, model::Model& model) {
  std::vector<checkpoint::ParameterValue> values;
  nn::ParameterList buffers;
  for (nn::Parameter* parameter : model.parameters()) {
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

}  // namespace

LoadedModel load_model(const std::filesystem::path& path, const LoadModelOptions& options) {
  LoadedModel result;
  result.checkpoint = checkpoint::find_checkpoint(path);
  if (result.checkpoint != path) log_info("checkpoint: {}", result.checkpoint.string());
  const auto reader = checkpoint::CheckpointReader::open(result.checkpoint, checkpoint::Check::kManifest);
  result.config = load_config_text(reader.state().text("config"), (result.checkpoint / "manifest.json").string()).config;
  if (options.compute) result.config.precision.compute = *options.compute;
  result.model = std::make_unique<model::Model>(model::model_options(result.config));
  if (options.average) {
    load_average(reader, *result.model);
  } else {
    checkpoint::load_parameters(reader, result.model->parameters(), "", {.convert_dtype = true});
  }
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
