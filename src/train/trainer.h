// A training run from its config to its last checkpoint: the only place where data, model, optimizer, checkpoints and metrics meet.
#pragma once

#include <memory>
#include <optional>

#include "checkpoint/run_lock.h"
#include "comm/communicator.h"
#include "config/load.h"
#include "model/model.h"
#include "optim/adamw.h"
#include "train/evaluate.h"
#include "train/metrics.h"
#include "train/progress.h"
#include "train/run_data.h"
#include "train/run_state.h"
#include "train/signals.h"
#include "train/step.h"

namespace hadal::train {

class Trainer {
 public:
  /// Opens the data, builds the model, resumes when the run directory holds a checkpoint. Both references outlive the trainer.
  Trainer(const LoadedConfig& loaded, comm::Communicator& world, bool quiet);

  /// Trains to train.steps. 0 when done, 75 when stopped early after a good save.
  int run();

 private:
  void start();
  int train();
  StepResult step(double& seconds);
  void record(const StepResult& result, double seconds);
  void validate(report::MetricsRow& row);
  void save();
  /// True when the run has to stop now.
  bool answer_requests();
  void write_status(const char* state, int exit_code);
  bool is_last_step() const { return state_.step == config_.train.steps; }

  const Config& config_;
  comm::Communicator& world_;
  bool quiet_;
  Stream stream_;
  std::optional<checkpoint::RunLock> lock_;  ///< rank 0
  RunData data_;
  model::Model model_;
  optim::AdamW optimizer_;
  TrainStep train_step_;
  RunState state_;
  double flops_per_token_ = 0;
  double peak_flops_ = 0;         ///< of all ranks together
  std::int64_t last_saved_step_ = -1;
  std::int64_t skipped_in_a_row_ = 0;
  std::string last_checkpoint_;
  std::optional<MetricsWriter> metrics_;   ///< rank 0
  std::optional<Progress> progress_;       ///< rank 0
};

}  // namespace hadal::train
