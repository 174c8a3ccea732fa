// `hadal verify`: does a config compute the same on many ranks as on one? The user's model is made small, and layouts of it run in this
// process against one rank in f64: every loss, every gradient, every parameter after three optimizer steps (design.md 4, promise 4).
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "config/config.h"

namespace hadal::verify {

/// Largest relative difference that passes, of losses and per tensor.
inline constexpr double kTolerance = 1e-10;

struct LayoutResult {
  std::string name;
  bool passed = false;
  double worst_error = 0;  ///< of everything that was compared
  std::string tensor;      ///< where: "gradient of model.norm.weight", "loss of step 2"
  std::string problem;     ///< what else is wrong: an exception, a slice that nobody holds
  double seconds = 0;
};

struct VerifyOptions {
  std::int64_t ranks = 4;
  bool full = false;  ///< every split instead of a covering set
};

/// One result per layout, the user's own (scaled down) first. `report` is called as each is done, with how many there are.
std::vector<LayoutResult> verify(const Config& config, const VerifyOptions& options,
                                 const std::function<void(const LayoutResult&, std::size_t done, std::size_t count)>& report);

/// One layout of an already small config against its one-rank trajectory; building block of verify and of its tests.
LayoutResult verify_layout(const Config& small, const ParallelSection& layout, std::int64_t ranks);

}  // namespace hadal::verify
