// Flags shared by the commands that run a checkpoint: CKPT, --tokenizer, --device, --dtype, --ema, --threads.
#pragma once

#include <string>

#include "train/load_model.h"

namespace CLI {
class App;
}

namespace hadal::cli {

struct ModelFlags {
  std::string checkpoint;
  std::string tokenizer;
  std::string device;
  std::string dtype;
  bool average = false;
  int threads = 0;
};

void add_model_flags(CLI::App& app, ModelFlags& flags);
/// Sets the threads and loads the model.
train::LoadedModel load_model(const ModelFlags& flags);
/// The same for evaluation on the one rank of `world`.
train::LoadedRun load_run(const ModelFlags& flags, comm::Communicator& world);

}  // namespace hadal::cli
