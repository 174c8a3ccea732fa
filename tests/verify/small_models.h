// The kinds of model that layouts are proved on, small (verify/shrink.h).
#pragma once

#include <cstdint>
#include <ostream>
#include <string>
#include <vector>

#include "config/config.h"

namespace hadal::verify::test {

struct Kind {
  std::string name;
  Config config;
};
inline void PrintTo(const Kind& kind, std::ostream* out) { *out << kind.name; }

/// A layout to be written down in a test.
struct Split {
  std::int64_t tp = 1, cp = 1, pp = 1, ep = 1, etp = 1;
  ScheduleKind schedule = ScheduleKind::kOneFOneB;
  std::vector<StageSection> stages{};
  std::int64_t ranks_per_node = 0;
  double expert_capacity = 0;

  ParallelSection section() const;
};

/// Each with a mixture of experts, a sequence balance loss, padding and fill-in-middle in its data.
std::vector<Kind> kinds();

/// NSA over MLA with q LoRA and selection groups, experts in groups, two MTP modules: everything at once.
Config everything();

}  // namespace hadal::verify::test
