#include "cli/model_flags.h"

#include <CLI/CLI.hpp>

#include "core/parallel_for.h"

namespace hadal::cli {

void add_model_flags(CLI::App& app, ModelFlags& flags) {
  app.add_option("CKPT", flags.checkpoint, "step directory, checkpoints/ or run directory (its newest step)")->required();
  app.add_option("--tokenizer", flags.tokenizer, "tokenizer directory instead of the run's own");
  app.add_option("--device", flags.device, "cpu or cuda (default: as trained, where that is there)")->check(CLI::IsMember({"cpu", "cuda"}));
  app.add_option("--dtype", flags.dtype, "f32, f64 (CPU) or bf16 (CUDA): dtype of the whole computation (default: as trained)")
      ->check(CLI::IsMember({"f32", "f64", "bf16"}));
  app.add_flag("--ema", flags.average, "use the moving average of the weights");
  app.add_option("--threads", flags.threads, "threads (default: the cores this process may use)")->check(CLI::Range(1, 1024));
}

namespace {

/// Sets the threads.
train::LoadModelOptions options_of(const ModelFlags& flags) {
  if (flags.threads > 0) set_num_threads(flags.threads);
  train::LoadModelOptions options;
  options.tokenizer = flags.tokenizer;
  options.average = flags.average;
  if (!flags.device.empty()) options.device = flags.device == "cuda" ? DeviceChoice::kCuda : DeviceChoice::kHost;
  if (flags.dtype == "f64") options.compute = ComputeType::kF64;
  if (flags.dtype == "f32") options.compute = ComputeType::kF32;
  if (flags.dtype == "bf16") options.compute = ComputeType::kBf16;
  return options;
}

}  // namespace

train::LoadedModel load_model(const ModelFlags& flags) { return train::load_model(flags.checkpoint, options_of(flags)); }

train::LoadedRun load_run(const ModelFlags& flags, comm::Communicator& world) {
  return train::load_run(flags.checkpoint, world, options_of(flags));
}

}  // namespace hadal::cli
