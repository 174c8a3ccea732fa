// What one rank computes of a small config, and the verdict on a layout of it.
#pragma once

#include <memory>
#include <string>

#include "verify/trajectory.h"

namespace hadal::verify {

/// Largest relative difference that passes, of losses and per tensor, in f64.
inline constexpr double kTolerance = 1e-10;
/// The same in the dtype of a config (design.md 4, promise 4).
constexpr double tolerance_of(const Config& config) { return config.precision.compute == ComputeType::kF64 ? kTolerance : 1e-5; }

struct LayoutResult {
  std::string name;
  bool passed = false;
  double worst_error = 0;  ///< of everything that was compared
  std::string tensor;      ///< the first that differs too much, "gradient of model.norm.weight", "loss of step 2"; else the worst
  std::string problem;     ///< what else is wrong: an exception, a slice that nobody holds, copies that differ
  double seconds = 0;
};

class Reference {
 public:
  /// Runs `small`, of one rank (shrink.h).
  explicit Reference(const Config& small);

  const Config& config() const { return config_; }
  const data::Sampler& sampler() const { return *sampler_; }
  /// The config in another layout.
  Config laid_out(const ParallelSection& layout) const;
  /// Runs the layout on threads of this process.
  LayoutResult prove(const ParallelSection& layout, std::int64_t ranks) const;
  /// Compares a run of the same config: losses, gradients and, in f64, parameters. Without name and seconds.
  LayoutResult judge(const Trajectory& run) const;

 private:
  Config config_;
  std::unique_ptr<data::Sampler> sampler_;
  Trajectory trajectory_;
};

}  // namespace hadal::verify
