// `hadal verify`: does a config compute the same on many ranks as on one? The user's model is made small, and layouts of it run in this
// process against one rank in f64: every loss, every gradient, every parameter after three optimizer steps (design.md 4, promise 4).
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "verify/reference.h"

namespace hadal::verify {

struct VerifyOptions {
  std::int64_t ranks = 4;
  bool full = false;  ///< every split instead of a covering set
};

/// One result per layout, the user's own (scaled down) first. `report` is called as each is done, with how many there are.
std::vector<LayoutResult> verify(const Config& config, const VerifyOptions& options,
                                 const std::function<void(const LayoutResult&, std::size_t done, std::size_t count)>& report);

}  // namespace hadal::verify
