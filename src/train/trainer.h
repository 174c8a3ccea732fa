// A training run from its config to its last checkpoint: the only place where data, model, optimizer, checkpoints and metrics meet.
#pragma once

#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "checkpoint/run_lock.h"
#include "comm/communicator.h"
#include "config/load.h"
#include "model/model.h"
#include "optim/sharded_adamw.h"
#include "train/evaluate.h"
#include "train/metrics.h"
#include "train/progress.h"
#include "train/run_data.h"
#include "train/run_state.h"
#include "train/signals.h"
#include "train/step.h"
#include "train/watchdog.h"

namespace hadal::train {

class Trainer {
 public:
  /// Opens the data, builds the model, resumes when the run directory holds a checkpoint. Both references outlive the trainer.
  Trainer(const LoadedConfig& loaded, comm::Communicator& world, bool quiet);

  /// Trains to train.steps. 0 when done, 75 when stopped early after a good save, 87 when updates were not finite too often, 74 when
  /// checkpoints cannot be written. All ranks return the same code.
  int run();

 private:
  void start();
  void start_watchdog();
  void restore();
  int train();
  StepResult step(double& seconds);
  /// Of this rank, in communication, so far.
  double waited_seconds() const;
  void record(const StepResult& result, double seconds);
  void write_metrics(const report::MetricsRow& row);
  void validate(report::MetricsRow& row);
  /// A checkpoint of the present step. False when it could not be written: the older ones stand, training may go on. Collective.
  bool save();
  /// The code to stop with now, if signals asked for it. Collective.
  std::optional<int> answer_requests();
  /// Ends the run by a decision that all ranks share.
  int give_up(ExitCode code, std::string_view reason);
  /// The last word of a rank that is about to throw.
  void note_failure(const std::exception& error);
  void write_status(const char* state, int exit_code);
  bool is_last_step() const { return state_.step == config_.train.steps; }

  const Config& config_;
  comm::Communicator& world_;
  bool quiet_;
  SignalHandlers handlers_;  ///< before anything slow: a signal without a handler ends the process
  Device device_;
  Stream stream_;
  std::optional<checkpoint::RunLock> lock_;  ///< rank 0
  RunData data_;
  RunModel run_;
  optim::ShardedAdamW optimizer_;
  TrainStep train_step_;
  RunState state_;
  double flops_per_token_ = 0;
  double waited_share_ = 0;       ///< of the last step's time
  double peak_flops_ = 0;         ///< of all ranks together
  std::int64_t last_saved_step_ = -1;
  std::int64_t skipped_in_a_row_ = 0;
  std::int64_t failed_saves_in_a_row_ = 0;
  bool metrics_failed_ = false;   ///< the present trouble with metrics.jsonl was told
  std::string last_checkpoint_;   ///< relative to the run directory
  std::optional<MetricsWriter> metrics_;   ///< rank 0
  std::optional<Progress> progress_;       ///< rank 0
  std::optional<Watchdog> watchdog_;  ///< where ranks are processes; the last to come and the first to go
};

}  // namespace hadal::train
