#include "train/trainer.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <new>

#include "checkpoint/run_status.h"
#include "checkpoint/store.h"
#include "comm/position.h"
#include "comm/world.h"
#include "config/write.h"
#include "core/copy.h"
#include "core/file.h"
#include "core/log.h"
#include "core/parallel_for.h"
#include "model/engine_notes.h"
#include "model/parameter_count.h"
#include "optim/lr_schedule.h"
#include "train/device_peak.h"
#include "train/micro_batch.h"
#include "train/rank_figures.h"
#include "train/run_device.h"
#include "train/write_plan.h"

namespace hadal::train {
namespace {

// In a row, before the run gives up (spec/reliability.md 2).
constexpr std::int64_t kMaxSkipped = 3;
constexpr std::int64_t kMaxFailedSaves = 3;

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// Where the checkpoint of a step stands in the run directory.
std::string checkpoint_name(std::int64_t step) { return fmt::format("checkpoints/step-{}", step); }

/// Who can take the trained model: most shape mistakes cannot be repaired at export (spec/interop.md 5).
void tell_engines(const ModelSection& shape) {
  std::string text;
  for (const model::EngineNote& note : model::engine_notes(shape)) {
    text += fmt::format("{}{} {}{}", text.empty() ? "" : "; ", note.engine, note.ok ? "yes" : "no", note.reason.empty() ? "" : " (" + note.reason + ")");
  }
  log_info("exported, this shape can be loaded by: {}", text);
}

/// What the process will end with when `error` leaves it.
ExitCode code_of(const std::exception& error) {
  if (const auto* own = dynamic_cast<const Error*>(&error)) return own->code();
  const bool system = dynamic_cast<const std::bad_alloc*>(&error) != nullptr ||
                      dynamic_cast<const std::filesystem::filesystem_error*>(&error) != nullptr;
  return system ? ExitCode::kIo : ExitCode::kBug;
}

std::vector<double> load_shares(const LayerLoad& load) {
  double total = 0;
  for (const std::int64_t count : load.counts) total += static_cast<double>(count);
  std::vector<double> shares;
  for (const std::int64_t count : load.counts) shares.push_back(total > 0 ? static_cast<double>(count) / total : 0.0);
  return shares;
}

}  // namespace

Trainer::Trainer(const LoadedConfig& loaded, comm::Communicator& world, bool quiet)
    : config_(loaded.config),
      world_(world),
      quiet_(quiet),
      handlers_(world.size() == 1),
      device_(run_device(config_, world)),
      stream_(stream_of(device_)),
      data_(open_run_data(config_)),
      run_(config_, model::model_options(config_, device_), world),
      optimizer_(config_.optim, optimizer_groups(run_), world),
      train_step_(run_, optimizer_, config_.run.cuda_graph && !device_.is_cpu()) {
  if (world.is_root()) {
    for (const std::string& sentence : loaded.inert) log_warning("{}", sentence);
  }
  start();
}

void Trainer::start() {
  const std::filesystem::path run_dir = config_.run.dir;
  if (world_.is_root()) {
    lock_.emplace(run_dir);
    std::filesystem::create_directories(run_dir / "checkpoints");
  }
  world_.barrier();
  start_watchdog();
  try {
    const comm::Position position("restore");
    restore();
  } catch (const std::exception& error) {
    note_failure(error);
    throw;
  }
}

void Trainer::start_watchdog() {
  if (!comm::joined_others()) return;
  HangBounds bounds;
  bounds.silent_s = static_cast<double>(config_.run.hang_timeout_s);
  if (bounds.silent_s > 0) bounds.proven_s = std::min(bounds.proven_s, bounds.silent_s);
  const std::filesystem::path run_dir = config_.run.dir;
  const auto at_end = [run_dir, ledger = world_.ledger()](ExitCode code) {
    // Not from members: the rank's own thread may be in the middle of changing them.
    const std::vector<checkpoint::StepDir> saved = checkpoint::list_checkpoints(run_dir / "checkpoints");
    checkpoint::write_run_status(run_dir, {.state = "failed",
                                           .step = comm::snapshot_of(ledger->memory()).step,
                                           .checkpoint = saved.empty() ? "" : checkpoint_name(saved.back().step),
                                           .exit_code = static_cast<int>(code)});
  };
  watchdog_.emplace(world_, run_dir / "log", bounds, at_end);
}

void Trainer::restore() {
  const std::filesystem::path run_dir = config_.run.dir;
  const std::optional<RunState> restored = restore_run(config_, run_.model(), optimizer_, *data_.training, world_);
  if (restored) {
    state_ = *restored;
    last_saved_step_ = state_.step;
    last_checkpoint_ = checkpoint_name(state_.step);
  } else if (!config_.run.init_from.empty()) {
    initialize(run_, optimizer_, stream_, config_.run.seed);
    load_weights(config_.run.init_from, run_.model(), optimizer_, world_);
    optimizer_.reset_average(stream_);
  } else {
    initialize(run_, optimizer_, stream_, config_.run.seed);
    optimizer_.reset_average(stream_);
  }
  flops_per_token_ = model::model_flops_per_token(config_.model, config_.data.sequence_length);
  peak_flops_ = peak_flops(run_.options().storage()) * world_.size();
  reset_peak(device_);
  if (!world_.is_root()) return;
  const std::string yaml = to_yaml(config_);
  write_file_atomically(run_dir / "config.yaml", yaml);
  write_plan(config_, world_.size(), num_threads(), run_dir);
  metrics_.emplace(run_dir, restored ? std::optional(state_.step) : std::nullopt, yaml);
  progress_.emplace(detect_progress(config_.train.steps, quiet_), stderr);
  if (!restored) tell_engines(config_.model);
  const model::ParameterCount count = model::count_parameters(config_.model);
  const std::string origin = restored ? "resumed" : config_.run.init_from.empty() ? "new" : "new, weights of " + config_.run.init_from;
  log_info("{}: {:.2f} M parameters, {:.2f} M active per token; {} x {} threads ({}), {} on {}; {} at step {}", config_.run.dir,
           static_cast<double>(count.total_with_mtp) / 1e6, static_cast<double>(count.active) / 1e6, world_.size(), num_threads(),
           world_.description(), name_of(run_.options().dtype), name_of(device_), origin, state_.step);
}

int Trainer::run() {
  write_status("running", 0);
  try {
    return train();
  } catch (const std::exception& error) {
    note_failure(error);
    throw;
  }
}

int Trainer::train() {
  while (state_.step < config_.train.steps) {
    double seconds = 0;
    const StepResult result = step(seconds);
    record(result, seconds);
    if (skipped_in_a_row_ >= kMaxSkipped) {
      return give_up(ExitCode::kNumerics, fmt::format("step {}: {} updates in a row were not finite; lower optim.lr or resume from an older checkpoint",
                                                      state_.step, kMaxSkipped));
    }
    if (config_.checkpoint.interval > 0 && state_.step % config_.checkpoint.interval == 0) save();
    if (failed_saves_in_a_row_ >= kMaxFailedSaves) {
      return give_up(ExitCode::kIo, fmt::format("step {}: {} checkpoints in a row could not be written; free the disk of {} and start again",
                                                state_.step, kMaxFailedSaves, config_.run.dir));
    }
    if (const std::optional<int> code = answer_requests()) return *code;
  }
  if (!save()) return give_up(ExitCode::kIo, fmt::format("step {}: the last checkpoint could not be written", state_.step));
  if (progress_) progress_->finish();
  write_status("done", 0);
  return 0;
}

double Trainer::waited_seconds() const { return world_.ledger() == nullptr ? 0.0 : world_.ledger()->waited_seconds(); }

StepResult Trainer::step(double& seconds) {
  const auto begin = std::chrono::steady_clock::now();
  const comm::Position position("training step");
  if (comm::Ledger* ledger = world_.ledger()) ledger->set_step(state_.step + 1);
  const double waited_before = waited_seconds();
  const std::int64_t rows = optim::batch_size(config_.train, state_.tokens);
  const data::RowRange share = data::rows_of_rank(rows, static_cast<int>(run_.place().dp_rank), static_cast<int>(run_.layout().grid.dp()));
  const data::Batch batch =
      data_.training->batch(state_.next_sample + static_cast<std::uint64_t>(share.begin), share.end - share.begin);
  check_ids(batch, config_.model.vocab_size);
  const StepInput input{.lr = optim::learning_rate(config_.optim, state_.step, config_.train.steps),
                        .mtp_weight = optim::scheduled_value(config_.balance.mtp_weight, config_.balance.mtp_schedule, state_.tokens),
                        .bias_speed = optim::scheduled_value(config_.balance.bias_update_speed, config_.balance.bias_update_schedule, state_.tokens)};
  const StepResult result = train_step_.run(stream_, batch, rows, config_.train.micro_batch, input);
  ++state_.step;
  state_.tokens += rows * config_.data.sequence_length;
  state_.next_sample += static_cast<std::uint64_t>(rows);
  seconds = seconds_since(begin);
  waited_share_ = (waited_seconds() - waited_before) / seconds;
  skipped_in_a_row_ = result.applied ? 0 : skipped_in_a_row_ + 1;
  return result;
}

void Trainer::record(const StepResult& result, double seconds) {
  const bool interval_ended = state_.step % config_.train.log_interval == 0 || is_last_step() || state_.step == 1;
  const double tokens_per_s = static_cast<double>(result.tokens) / seconds;
  report::MetricsRow row;
  row.set("step", state_.step);
  row.set("tokens", state_.tokens);
  row.set("samples", static_cast<std::int64_t>(state_.next_sample));
  row.set("loss", result.loss);
  if (!result.mtp_loss.empty()) row.set("mtp_loss", result.mtp_loss[0]);
  row.set("balance_loss", result.balance_loss);
  row.set("lr", optim::learning_rate(config_.optim, state_.step - 1, config_.train.steps));
  row.set("grad_norm", result.grad_norm);
  row.set("tokens_per_s", tokens_per_s);
  row.set("step_ms", seconds * 1e3);
  row.set("peak_share", tokens_per_s * flops_per_token_ / peak_flops_);
  if (world_.size() > 1) row.set("waited_share", waited_share_);
  if (!train_step_.loads().empty()) row.set("max_vio", result.max_violation);
  row.set("memory_bytes", static_cast<std::int64_t>(memory_stats(device_).peak_bytes));
  if (!result.applied) row.set("skipped", std::int64_t{1});
  if (interval_ended) {
    add_rank_figures(row, world_);
    for (const LayerLoad& load : train_step_.loads()) row.set(fmt::format("moe.layer_{}.load", load.layer_idx), load_shares(load));
  }
  validate(row);
  write_metrics(row);
  if (progress_) progress_->update(row, interval_ended);
  if (progress_ && !result.applied) progress_->note(fmt::format("step {}: loss or gradient is not finite; the update was skipped", state_.step));
}

void Trainer::write_metrics(const report::MetricsRow& row) {
  if (!metrics_) return;
  try {
    metrics_->write(row);
    metrics_failed_ = false;
  } catch (const IoError& error) {
    // A full disk costs rows, not the run: the next row is written over what is left of this one.
    if (!metrics_failed_) log_warning("step {}: metrics are lost from here until this works again: {}", state_.step, error.what());
    metrics_failed_ = true;
  }
}

void Trainer::validate(report::MetricsRow& row) {
  const std::int64_t interval = config_.train.eval_interval;
  if (!data_.validation || !((interval > 0 && state_.step % interval == 0) || is_last_step())) return;
  const comm::Position position("validation");
  optimizer_.wait_values();
  const EvaluationResult result = evaluate(run_, stream_, *data_.validation, config_.train.eval_tokens, config_.train.micro_batch,
                                           data_.tokenizer ? &*data_.tokenizer : nullptr);
  row.set("val_loss", result.loss);
  row.set("val_unigram_entropy", result.unigram_entropy);
  if (result.bits_per_byte > 0) row.set("val_bits_per_byte", result.bits_per_byte);
  if (result.mtp_loss > 0) row.set("val_mtp_acceptance", result.acceptance);
  if (progress_) {
    std::string text = fmt::format("step {}: validation loss {:.4f} ({:.1f} % of the unigram entropy {:.4f})", state_.step, result.loss,
                                   100.0 * result.loss / result.unigram_entropy, result.unigram_entropy);
    if (result.bits_per_byte > 0) text += fmt::format(", {:.3f} bits per byte", result.bits_per_byte);
    progress_->note(text);
  }
}

bool Trainer::save() {
  if (last_saved_step_ == state_.step) return true;
  const comm::Position position("save");
  const std::string failure = save_run(config_, state_, run_.model(), optimizer_, *data_.training, world_, metrics_ ? &*metrics_ : nullptr);
  if (!failure.empty()) {
    ++failed_saves_in_a_row_;
    if (world_.is_root()) log_warning("step {}: no checkpoint: {}", state_.step, failure);
    return false;
  }
  failed_saves_in_a_row_ = 0;
  last_checkpoint_ = checkpoint_name(state_.step);
  last_saved_step_ = state_.step;
  return true;
}

std::optional<int> Trainer::answer_requests() {
  const auto request = static_cast<Request>(world_.all_reduce_max(static_cast<std::int64_t>(pending_request())));
  if (request == Request::kNone) return std::nullopt;
  const bool good = save();
  saved(request);
  if (progress_ && good) progress_->note(fmt::format("step {}: saved {}/{}", state_.step, config_.run.dir, last_checkpoint_));
  if (request != Request::kSaveAndStop) return std::nullopt;
  if (!good) return give_up(ExitCode::kIo, fmt::format("step {}: stopped on request without a checkpoint of this step", state_.step));
  if (progress_) progress_->finish();
  write_status("stopped", static_cast<int>(ExitCode::kStoppedEarly));
  return static_cast<int>(ExitCode::kStoppedEarly);
}

int Trainer::give_up(ExitCode code, std::string_view reason) {
  if (progress_) progress_->finish();
  if (world_.is_root()) log_error("{}", reason);
  write_status("failed", static_cast<int>(code));
  return static_cast<int>(code);
}

void Trainer::note_failure(const std::exception& error) {
  if (progress_) progress_->finish();
  write_status("failed", static_cast<int>(code_of(error)));
}

void Trainer::write_status(const char* state, int exit_code) {
  if (!world_.is_root()) return;
  try {
    checkpoint::write_run_status(config_.run.dir, {.state = state, .step = state_.step, .checkpoint = last_checkpoint_, .exit_code = exit_code});
  } catch (const IoError& error) {
    log_warning("status.json does not say \"{}\": {}", state, error.what());
  }
}

}  // namespace hadal::train
