#include "verify/layouts.h"

#include <algorithm>
#include <set>
#include <utility>

#include "core/error.h"
#include "plan/layout.h"
#include "schedule/kinds.h"

namespace hadal::verify {
namespace {

constexpr ScheduleKind kSchedules[] = {ScheduleKind::kGpipe,        ScheduleKind::kOneFOneB,  ScheduleKind::kInterleaved, ScheduleKind::kZeroBubbleH1,
                                       ScheduleKind::kZeroBubbleH2, ScheduleKind::kDualPipeV, ScheduleKind::kDualPipe};

std::vector<std::int64_t> divisors(std::int64_t n) {
  std::vector<std::int64_t> result;
  for (std::int64_t d = 1; d <= n; ++d) {
    if (n % d == 0) result.push_back(d);
  }
  return result;
}

/// Whether the small model can be laid out so.
bool fits(const Config& small, const ParallelSection& layout, std::int64_t ranks) {
  Config config = small;
  config.parallel = layout;
  try {
    plan::make_layout(config, ranks);
    return true;
  } catch (const UserError&) {
    return false;
  }
}

/// Two things that meet in a layout: "pp" and "tp", "dualpipe" and "dualpipe".
using Meeting = std::pair<std::string, std::string>;

std::set<Meeting> meetings(const ParallelSection& p, std::int64_t ranks) {
  std::vector<std::string> parts;
  const auto add = [&](bool there, std::string name) {
    if (there) parts.push_back(std::move(name));
  };
  add(p.pp > 1, "pp");
  add(p.pp > 1, fmt::format("schedule {}", static_cast<int>(p.schedule)));
  add(ranks / (p.pp * p.cp * p.tp) > 1, "dp");
  add(p.cp > 1, "cp");
  add(p.tp > 1, "tp");
  add(p.ep > 1, "ep");
  add(p.etp > 1, "etp");
  add(p.ranks_per_node > 0, "two-hop");
  std::set<Meeting> result;
  for (const std::string& a : parts) {
    for (const std::string& b : parts) {
      const bool schedules = a.starts_with("schedule") && a != b;  // a schedule alone, not with each axis
      if (!schedules && !(b.starts_with("schedule") && a != b)) result.insert({a, b});
    }
  }
  return result;
}

}  // namespace

std::vector<ParallelSection> all_layouts(const Config& small, std::int64_t ranks) {
  std::vector<ParallelSection> layouts;
  for (const std::int64_t pp : divisors(ranks)) {
    for (const std::int64_t cp : divisors(ranks / pp)) {
      for (const std::int64_t tp : divisors(ranks / pp / cp)) {
        const std::int64_t stage = ranks / pp;
        for (const std::int64_t ep : divisors(stage)) {
          for (const std::int64_t etp : divisors(stage / ep)) {
            for (const std::int64_t node : {std::int64_t{0}, ep * etp / 2}) {
              if (node == 1 || (node > 0 && ep < 4)) continue;  // a node of one rank, or experts that two nodes do not share
              for (const ScheduleKind schedule : kSchedules) {
                if (pp == 1 && schedule != ScheduleKind::kOneFOneB) continue;
                ParallelSection layout;
                layout.tp = tp;
                layout.cp = cp;
                layout.pp = pp;
                layout.ep = ep;
                layout.etp = etp;
                layout.schedule = schedule;
                layout.ranks_per_node = node;
                if (fits(small, layout, ranks)) layouts.push_back(layout);
              }
            }
          }
        }
      }
    }
  }
  return layouts;
}

std::vector<ParallelSection> covering_layouts(const Config& small, std::int64_t ranks) {
  // Greedy: always the layout that shows the most meetings that were not seen yet; ties to the first.
  const std::vector<ParallelSection> all = all_layouts(small, ranks);
  std::vector<ParallelSection> chosen;
  std::set<Meeting> seen;
  for (;;) {
    const ParallelSection* best = nullptr;
    std::size_t most = 0;
    for (const ParallelSection& layout : all) {
      std::size_t fresh = 0;
      for (const Meeting& meeting : meetings(layout, ranks)) fresh += seen.contains(meeting) ? 0 : 1;
      if (fresh > most) {
        most = fresh;
        best = &layout;
      }
    }
    if (best == nullptr) return chosen;
    chosen.push_back(*best);
    for (const Meeting& meeting : meetings(*best, ranks)) seen.insert(meeting);
  }
}

std::string describe(const ParallelSection& p, std::int64_t ranks) {
  std::string text;
  const auto add = [&](bool there, const std::string& part) {
    if (there) text += (text.empty() ? "" : " ") + part;
  };
  add(p.pp > 1, fmt::format("pp {} ({})", p.pp, schedule::name_of(plan::schedule_kind(p.schedule))));
  const std::int64_t dp = ranks / (p.pp * p.cp * p.tp);
  add(dp > 1, fmt::format("dp {}", dp));
  add(p.cp > 1, fmt::format("cp {}", p.cp));
  add(p.tp > 1, fmt::format("tp {}", p.tp));
  add(p.ep > 1, fmt::format("ep {}", p.ep));
  add(p.etp > 1, fmt::format("etp {}", p.etp));
  add(p.ranks_per_node > 0, "two-hop");
  add(p.expert_capacity > 0, fmt::format("expert room {:g}", p.expert_capacity));
  return text.empty() ? "one rank" : text;
}

}  // namespace hadal::verify
