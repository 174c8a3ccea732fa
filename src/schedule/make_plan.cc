#include "schedule/make_plan.h"

#include <fmt/core.h>

#include "core/error.h"
#include "schedule/kinds.h"
#include "schedule/plans/plans.h"
#include "schedule/transfers.h"
#include "schedule/validate.h"

namespace hadal::schedule {
namespace {

/// What training and evaluation both need.
std::string why_no_placement(const Request& request) {
  const KindRow& row = row_of(request.kind);
  if (request.ranks < 1 || request.micro_batches < 1 || request.chunks < 1) {
    return fmt::format("{} needs at least 1 pipeline rank, 1 micro-batch and 1 chunk per rank, got {}, {} and {}", row.name,
                       request.ranks, request.micro_batches, request.chunks);
  }
  const int fixed = row.arrangement == Arrangement::kSequential ? 1 : 2;
  if (request.kind != Kind::kInterleaved && request.chunks != 1 && request.chunks != fixed) {
    return fmt::format("{} has {} per rank, got {}: leave the chunks out, or take the schedule interleaved", row.name,
                       fixed == 1 ? "1 chunk" : "2 chunks", request.chunks);
  }
  return "";
}

Plan proved(Plan plan) {
  add_transfers(plan);
  const Verdict verdict = validate(plan);
  HADAL_CHECK(verdict.ok(), "{} on {} ranks with {} micro-batches: {}", name_of(plan.kind), plan.placement.num_ranks(),
              plan.placement.num_micro_batches(), verdict.reason);
  return plan;
}

}  // namespace

std::string why_impossible(const Request& request) {
  const std::string reason = why_no_placement(request);
  const KindRow& row = row_of(request.kind);
  return reason.empty() && row.refuse != nullptr ? row.refuse(request) : reason;
}

Placement placement_of(const Request& request) {
  return {row_of(request.kind).arrangement, request.ranks, request.chunks, request.micro_batches};
}

Plan make_plan(const Request& request) {
  const std::string reason = why_impossible(request);
  if (!reason.empty()) throw UserError("{}", reason);
  Plan plan{request.kind, false, placement_of(request), {}};
  for (int rank = 0; rank < request.ranks; ++rank) {
    RankList list(plan.placement, rank);
    row_of(request.kind).write(list);
    plan.ranks.push_back(list.take());
  }
  return proved(std::move(plan));
}

Plan make_forward_plan(const Request& request) {
  const std::string reason = why_no_placement(request);
  if (!reason.empty()) throw UserError("{}", reason);
  Plan plan{request.kind, true, placement_of(request), {}};
  plan.ranks = plans::forward_only(plan.placement);
  return proved(std::move(plan));
}

}  // namespace hadal::schedule
