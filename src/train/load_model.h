// A trained (or imported) model from its checkpoint alone: the config travels inside.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>

#include "config/config.h"
#include "model/model.h"
#include "tokenizer/tokenizer.h"
#include "train/run_model.h"

namespace hadal::train {

struct LoadedModel {
  Config config;
  std::filesystem::path checkpoint;                ///< the step directory that was taken
  std::unique_ptr<model::Model> model;
  std::optional<tokenizer::Tokenizer> tokenizer;   ///< when the config names one that is there
};

struct LoadModelOptions {
  std::optional<DeviceChoice> device;  ///< unset: as trained, or the CPU where there is no such device
  std::optional<ComputeType> compute;  ///< dtype of the computation; unset: as trained, f32 in place of what the device cannot do
  bool average = false;                ///< the moving average instead of the weights
  std::filesystem::path tokenizer;     ///< instead of the config's
};

/// `checkpoint`: step, checkpoints or run directory; the newest committed step is taken and named on stderr.
LoadedModel load_model(const std::filesystem::path& checkpoint, const LoadModelOptions& options = {});
/// The same model as a run of one rank has it, for evaluation. `world` has one rank and outlives it.
struct LoadedRun {
  Config config;  ///< with one rank's layout
  std::unique_ptr<RunModel> run;
  std::optional<tokenizer::Tokenizer> tokenizer;
};
LoadedRun load_run(const std::filesystem::path& checkpoint, comm::Communicator& world, const LoadModelOptions& options = {});
/// The tokenizer, or a UserError that says how to give one.
const tokenizer::Tokenizer& required_tokenizer(const LoadedModel& loaded);

}  // namespace hadal::train
