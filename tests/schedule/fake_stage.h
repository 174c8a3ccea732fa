// Stages whose arithmetic shows every mix-up: each element depends on the stage and on the micro-batch, sizes differ by both, and
// the weight gradient is a sum that depends on its order. `Reference` computes the same in one loop.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "schedule/executor.h"

namespace hadal::schedule::test {

/// f64 elements of what enters a stage.
std::int64_t width_of(int stage, int micro_batch);
/// The tokens of the first stage.
std::vector<double> input_of(int micro_batch);
std::vector<double> forward_of(int stage, int micro_batch, const std::vector<double>& x, std::int64_t width);
/// Gradient of the loss on the last stage's output.
std::vector<double> loss_gradient(int micro_batch, const std::vector<double>& y);
std::vector<double> backward_of(int stage, const std::vector<double>& x, const std::vector<double>& d_y);
/// One more micro-batch of a weight gradient.
double add_weight(double sum, const std::vector<double>& x, const std::vector<double>& d_y);

class FakeStages : public StageRunner {
 public:
  FakeStages(const Plan& plan, int rank);

  Boundary boundary(int slot, int micro_batch) override;
  Tensor forward(int slot, int micro_batch, Tensor x) override;
  Tensor backward_input(int slot, int micro_batch, Tensor d_y) override;
  void backward_weight(int slot, int micro_batch) override;

  const std::vector<double>& weights() const { return weights_; }  ///< gradients, by slot
  /// Last stage alone: the sum of the output's elements, by micro-batch.
  const std::map<int, double>& losses() const { return losses_; }
  int peak() const { return peak_; }
  std::size_t alive() const { return saved_.size(); }

 private:
  struct Saved {
    std::vector<double> x, y, d_y;
  };

  const Plan& plan_;
  int rank_;
  std::vector<double> weights_;
  std::map<int, double> losses_;
  std::map<std::pair<int, int>, Saved> saved_;
  int peak_ = 0;
};

/// Stages without values: tensors of kBytes that live between stages alone.
class EmptyStages : public StageRunner {
 public:
  static constexpr std::int64_t kBytes = 1 << 18;

  EmptyStages(const Placement& placement, int rank) : placement_(placement), rank_(rank) {}
  Boundary boundary(int, int) override { return {Shape{kBytes}, DType::kU8, kCpu}; }
  Tensor forward(int slot, int, Tensor) override {
    return placement_.is_last(placement_.stage_of(rank_, slot)) ? Tensor() : Tensor::empty(Shape{kBytes}, DType::kU8);
  }
  Tensor backward_input(int slot, int, Tensor) override {
    return placement_.stage_of(rank_, slot) == 0 ? Tensor() : Tensor::empty(Shape{kBytes}, DType::kU8);
  }
  void backward_weight(int, int) override {}

 private:
  const Placement& placement_;
  int rank_;
};

/// Runs this rank's list and compares with one loop over micro-batches and stages; "" or what differs.
std::string run_and_compare(const Plan& plan, comm::Communicator& pipeline);
/// Runs the plan on as many threads and compares each rank.
std::string run_and_compare(const Plan& plan);

}  // namespace hadal::schedule::test
