#include "train/pipeline.h"

#include <utility>

namespace hadal::train {

/// The executor's view of the stages.
class Pipeline::Runner : public schedule::StageRunner {
 public:
  /// Null `complete` evaluates.
  Runner(RunModel& run, Stream& stream, const schedule::Placement& placement, const std::vector<model::MicroBatch>& micro_batches,
         const model::Stage::Complete* complete)
      : run_(run), stream_(stream), placement_(placement), micro_batches_(micro_batches), complete_(complete), outcomes_(micro_batches.size()),
        losses_(static_cast<std::int64_t>(micro_batches.size()), run.options().shape.mtp.depth, run.options().device) {}

  schedule::Boundary boundary(int, int micro_batch) override {
    const model::MicroBatch& m = micro_batches_[static_cast<std::size_t>(micro_batch)];
    const ModelSection& shape = run_.options().shape;
    return {.shape = {m.batch * m.seq / run_.layout().grid.tp(), shape.hidden_size}, .dtype = run_.options().dtype, .device = run_.options().device};
  }

  Tensor forward(int slot, int micro_batch, Tensor x) override {
    model::Stage::Outcome outcome;
    model::Stage::PassPtr pass = forward_pass(slot, micro_batch, std::move(x), outcome);
    model::run_segments(pass->list);
    return end_forward(slot, micro_batch, *pass, std::move(outcome));
  }

  Tensor backward_input(int slot, int micro_batch, Tensor d_y) override {
    return run_.model().stage(slot).backward_input(stream_, *records_.at({slot, micro_batch}), std::move(d_y), false);
  }

  void backward_weight(int slot, int micro_batch) override {
    const auto record = records_.find({slot, micro_batch});
    run_.model().stage(slot).backward_weight(stream_, *record->second, complete_after(slot, micro_batch));
    records_.erase(record);
  }

  Tensor backward(int slot, int micro_batch, Tensor d_y) override {
    const auto record = records_.find({slot, micro_batch});
    Tensor d_x = run_.model().stage(slot).backward_input(stream_, *record->second, std::move(d_y), true, complete_after(slot, micro_batch));
    records_.erase(record);
    return d_x;
  }

  /// What a micro-batch of one direction sends to experts travels while one of the other direction computes.
  schedule::PairOutput forward_backward(int forward_slot, int forward_micro_batch, Tensor x, int backward_slot,
                                        int backward_micro_batch, Tensor d_y) override {
    model::Stage::Outcome outcome;
    const auto record = records_.find({backward_slot, backward_micro_batch});
    model::Stage::PassPtr forward = forward_pass(forward_slot, forward_micro_batch, std::move(x), outcome);
    model::Stage::PassPtr backward = run_.model().stage(backward_slot).backward_pass(
        stream_, *record->second, std::move(d_y), true, complete_after(backward_slot, backward_micro_batch));
    model::run_in_turns(forward->list, forward_micro_batch, backward->list, backward_micro_batch);
    records_.erase(record);
    return {.y = end_forward(forward_slot, forward_micro_batch, *forward, std::move(outcome)), .d_x = std::move(backward->rows)};
  }

  std::vector<model::Stage::Outcome>& outcomes() { return outcomes_; }
  model::LossTable& losses() { return losses_; }

 private:
  /// Weight gradients of one slot follow the order of its micro-batches.
  const model::Stage::Complete* complete_after(int slot, int micro_batch) const {
    return micro_batch + 1 == placement_.end_micro_batch(slot) ? complete_ : nullptr;
  }

  model::Stage::PassPtr forward_pass(int slot, int micro_batch, Tensor x, model::Stage::Outcome& outcome) {
    outcome.losses = losses_.row(micro_batch);
    return run_.model().stage(slot).forward_pass(stream_, micro_batches_[static_cast<std::size_t>(micro_batch)], std::move(x),
                                                 complete_ == nullptr ? nullptr : &records_[{slot, micro_batch}], outcome);
  }

  /// What is handed on: nothing from the last stage.
  Tensor end_forward(int slot, int micro_batch, model::Stage::Pass& pass, model::Stage::Outcome outcome) {
    add(outcomes_[static_cast<std::size_t>(micro_batch)], std::move(outcome));
    return placement_.is_last(placement_.stage_of(static_cast<int>(run_.place().pp_rank), slot)) ? Tensor() : std::move(pass.rows);
  }

  /// Several stages of this rank may tell of the same micro-batch, each of its own pieces.
  static void add(model::Stage::Outcome& sum, model::Stage::Outcome part) {
    if (part.token_loss.defined()) sum.token_loss = std::move(part.token_loss);
    if (part.choice.defined()) sum.choice = std::move(part.choice);
    if (part.draft.defined()) sum.draft = std::move(part.draft);
  }

  RunModel& run_;
  Stream& stream_;
  const schedule::Placement& placement_;
  const std::vector<model::MicroBatch>& micro_batches_;
  const model::Stage::Complete* complete_;
  std::map<std::pair<int, int>, model::Stage::RecordPtr> records_;  ///< by slot and micro-batch
  std::vector<model::Stage::Outcome> outcomes_;
  model::LossTable losses_;
};

const schedule::Plan& Pipeline::plan(std::int64_t micro_batches, bool forward_only) {
  const std::pair key(micro_batches, forward_only);
  auto found = plans_.find(key);
  if (found == plans_.end()) {
    const schedule::Request request = run_.layout().request(micro_batches);
    found = plans_.emplace(key, forward_only ? schedule::make_forward_plan(request) : schedule::make_plan(request)).first;
  }
  return found->second;
}

model::LossTable Pipeline::train(Stream& stream, const std::vector<model::MicroBatch>& micro_batches, const model::Stage::Complete& complete) {
  if (micro_batches.empty()) return {0, run_.options().shape.mtp.depth, run_.options().device};
  const schedule::Plan& step = plan(static_cast<std::int64_t>(micro_batches.size()), false);
  Runner runner(run_, stream, step.placement, micro_batches, &complete);
  schedule::execute(step, run_.pipeline(), runner);
  return std::move(runner.losses());
}

std::vector<Pipeline::Evaluation> Pipeline::evaluate(Stream& stream, const std::vector<model::MicroBatch>& micro_batches) {
  if (micro_batches.empty()) return {};
  const schedule::Plan& forward = plan(static_cast<std::int64_t>(micro_batches.size()), true);
  Runner runner(run_, stream, forward.placement, micro_batches, nullptr);
  schedule::execute(forward, run_.pipeline(), runner);
  const std::vector<model::Losses> losses = runner.losses().read(stream);
  std::vector<Evaluation> evaluations;
  for (std::size_t i = 0; i < losses.size(); ++i) evaluations.push_back({std::move(runner.outcomes()[i]), losses[i]});
  return evaluations;
}

}  // namespace hadal::train
