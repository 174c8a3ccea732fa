#include "schedule/kinds.h"

#include <array>

#include "core/error.h"
#include "schedule/plans/plans.h"

namespace hadal::schedule {
namespace {

constexpr std::array<KindRow, 7> kKinds{{
    {Kind::kGpipe, "gpipe", "all forwards, then all backwards", Arrangement::kSequential, plans::gpipe, nullptr},
    {Kind::kOneFOneB, "1f1b", "one forward, one backward", Arrangement::kSequential, plans::one_f_one_b, nullptr},
    {Kind::kInterleaved, "interleaved", "1f1b with several chunks per rank: a smaller bubble, more transfers",
     Arrangement::kSequential, plans::interleaved, plans::refuse_interleaved},
    {Kind::kZeroBubbleH1, "zb_h1", "weight gradients fill the bubble, memory as 1f1b", Arrangement::kSequential,
     plans::zero_bubble_h1, nullptr},
    {Kind::kZeroBubbleH2, "zb_h2", "no bubble but the ramp, twice the activations", Arrangement::kSequential,
     plans::zero_bubble_h2, nullptr},
    {Kind::kDualPipeV, "dualpipe_v", "overlapped pairs in a V: two stages per rank, first and last together", Arrangement::kV,
     plans::dualpipe_v, plans::refuse_dualpipe_v},
    {Kind::kDualPipe, "dualpipe", "overlapped pairs from both ends, two copies of the model", Arrangement::kBidirectional,
     plans::dualpipe, plans::refuse_dualpipe},
}};

}  // namespace

std::span<const KindRow> kinds() { return kKinds; }

const KindRow& row_of(Kind kind) {
  for (const KindRow& row : kKinds) {
    if (row.kind == kind) return row;
  }
  detail::contract_failed(__FILE__, __LINE__, "row_of", "a kind without a row");
}

std::optional<Kind> find_kind(std::string_view name) {
  for (const KindRow& row : kKinds) {
    if (row.name == name) return row.kind;
  }
  return std::nullopt;
}

}  // namespace hadal::schedule
