#include "comm/ledger_report.h"

#include <fmt/core.h>

#include <algorithm>
#include <iterator>

namespace hadal::comm {
namespace {

const char* word_for(const RankView& view) {
  if (view.ledger.ended) return "has left";
  switch (view.state) {
    case ProcessState::kRuns:
      return "runs";
    case ProcessState::kHeld:
      return "debugged";
    case ProcessState::kStopped:
      return "stopped";
    case ProcessState::kGone:
      return "gone";
  }
  return "";
}

double ms(std::int64_t from_ns, std::int64_t to_ns) { return static_cast<double>(to_ns - from_ns) / 1e6; }

}  // namespace

std::string report_of(std::span<const RankView> ranks) {
  std::string text = fmt::format("{:>5} {:>8} {:<9} {:>8}  {:<48} {}\n", "rank", "process", "state", "step", "place", "waits in");
  // Ranks of a host share a clock: times are before the last thing that any of them did.
  std::int64_t last_ns = 0;
  for (const RankView& view : ranks) {
    const RankSnapshot& rank = view.ledger;
    fmt::format_to(std::back_inserter(text), "{:>5} {:>8} {:<9} {:>8}  {:<48} {}\n", rank.rank, rank.process.pid, word_for(view),
                   rank.step, rank.position.str(), rank.waiting ? rank.name_of(*rank.waiting) : "-");
    for (const CallSnapshot& call : rank.calls) last_ns = std::max({last_ns, call.started_ns, call.done_ns});
  }
  for (const RankView& view : ranks) {
    fmt::format_to(std::back_inserter(text), "\nlast calls of rank {}, newest first\n{:>12} {:>12} {:>12}  {:<48} {}\n",
                   view.ledger.rank, "ms ago", "took ms", "bytes", "call", "place");
    for (auto call = view.ledger.calls.rbegin(); call != view.ledger.calls.rend(); ++call) {
      const std::string took = call->done_ns == 0 ? "under way" : fmt::format("{:.3f}", ms(call->started_ns, call->done_ns));
      fmt::format_to(std::back_inserter(text), "{:>12.3f} {:>12} {:>12}  {:<48} {}\n", ms(call->started_ns, last_ns), took,
                     call->bytes, view.ledger.name_of(*call), call->position.str());
    }
  }
  return text;
}

}  // namespace hadal::comm
