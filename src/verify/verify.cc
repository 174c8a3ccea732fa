#include "verify/verify.h"

#include <algorithm>

#include "verify/layouts.h"
#include "verify/shrink.h"

namespace hadal::verify {
namespace {

/// Stages of the deepest pipeline among the layouts.
std::int64_t most_stages(const std::vector<ParallelSection>& layouts) {
  std::int64_t stages = 1;
  for (const ParallelSection& layout : layouts) {
    const bool two = layout.schedule == ScheduleKind::kDualPipeV;
    const std::int64_t per_rank = layout.schedule == ScheduleKind::kInterleaved ? layout.chunks : two ? 2 : 1;
    stages = std::max(stages, layout.pp * per_rank);
  }
  return stages;
}

}  // namespace

std::vector<LayoutResult> verify(const Config& config, const VerifyOptions& options,
                                 const std::function<void(const LayoutResult&, std::size_t, std::size_t)>& report) {
  // As many layers as the deepest pipeline needs, found with room for any.
  const Config roomy = shrink(config, options.ranks, 4 * options.ranks);
  std::vector<ParallelSection> layouts = options.full ? all_layouts(roomy, options.ranks) : covering_layouts(roomy, options.ranks);
  layouts.insert(layouts.begin(), scale_down(config.parallel, roomy, options.ranks));
  const Config small = shrink(config, options.ranks, most_stages(layouts));

  const Reference reference(small);
  std::vector<LayoutResult> results;
  for (const ParallelSection& layout : layouts) {
    LayoutResult result = reference.prove(layout, options.ranks);
    if (results.empty()) result.name = "yours: " + result.name;
    results.push_back(std::move(result));
    report(results.back(), results.size(), layouts.size());
  }
  return results;
}

}  // namespace hadal::verify
