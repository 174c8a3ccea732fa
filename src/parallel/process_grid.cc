#include "parallel/process_grid.h"

#include <fmt/core.h>

#include "core/error.h"

namespace hadal::parallel {

ProcessGrid::ProcessGrid(std::int64_t num_ranks, const Degrees& d) : num_ranks_(num_ranks), degrees_(d) {
  for (const std::int64_t degree : {num_ranks, d.pp, d.cp, d.tp, d.ep, d.etp}) {
    HADAL_CHECK(degree >= 1, "{} ranks, pp {} cp {} tp {} ep {} etp {}", num_ranks, d.pp, d.cp, d.tp, d.ep, d.etp);
  }
  const std::int64_t dense = d.pp * d.cp * d.tp;
  if (num_ranks % dense != 0) {
    throw UserError("{} ranks cannot be laid out as pp {} x cp {} x tp {}: their product {} must divide the number of ranks (what "
                    "is left is dp); start a multiple of {} ranks or change parallel.pp, cp, tp",
                    num_ranks, d.pp, d.cp, d.tp, dense, dense);
  }
  const std::int64_t expert = d.ep * d.etp;
  if (stage_ranks() % expert != 0) {
    throw UserError("ep {} x etp {} = {} must divide the dp {} x cp {} x tp {} = {} ranks of a pipeline stage ({} ranks, pp {}); "
                    "change parallel.ep, etp or the number of ranks",
                    d.ep, d.etp, expert, dp(), d.cp, d.tp, stage_ranks(), num_ranks, d.pp);
  }
}

Place ProcessGrid::place(int world_rank) const {
  HADAL_CHECK(world_rank >= 0 && world_rank < num_ranks_, "rank {} of {}", world_rank, num_ranks_);
  const std::int64_t inside = world_rank % stage_ranks();
  return {.pp_rank = world_rank / stage_ranks(),
          .dp_rank = inside / (tp() * cp()),
          .cp_rank = inside / tp() % cp(),
          .tp_rank = inside % tp(),
          .edp_rank = inside / (etp() * ep()),
          .ep_rank = inside / etp() % ep(),
          .etp_rank = inside % etp()};
}

std::string ProcessGrid::describe(int world_rank) const {
  const Place p = place(world_rank);
  std::string text;
  const auto add = [&](const char* axis, std::int64_t degree, std::int64_t rank) {
    if (degree > 1) text += fmt::format("{}{} {}", text.empty() ? "" : " ", axis, rank);
  };
  add("pp", pp(), p.pp_rank);
  add("dp", dp(), p.dp_rank);
  add("cp", cp(), p.cp_rank);
  add("tp", tp(), p.tp_rank);
  add("ep", ep(), p.ep_rank);
  add("etp", etp(), p.etp_rank);
  return text;
}

std::vector<int> ProcessGrid::tp_group(int world_rank) const {
  const Place p = place(world_rank);
  std::vector<int> ranks;
  for (std::int64_t t = 0; t < tp(); ++t) ranks.push_back(at(p.pp_rank, (p.dp_rank * cp() + p.cp_rank) * tp() + t));
  return ranks;
}

std::vector<int> ProcessGrid::cp_group(int world_rank) const {
  const Place p = place(world_rank);
  std::vector<int> ranks;
  for (std::int64_t c = 0; c < cp(); ++c) ranks.push_back(at(p.pp_rank, (p.dp_rank * cp() + c) * tp() + p.tp_rank));
  return ranks;
}

std::vector<int> ProcessGrid::pp_group(int world_rank) const {
  const std::int64_t inside = world_rank % stage_ranks();
  std::vector<int> ranks;
  for (std::int64_t stage = 0; stage < pp(); ++stage) ranks.push_back(at(stage, inside));
  return ranks;
}

std::vector<int> ProcessGrid::sequence_group(int world_rank) const {
  const Place p = place(world_rank);
  std::vector<int> ranks;
  for (std::int64_t i = 0; i < cp() * tp(); ++i) ranks.push_back(at(p.pp_rank, p.dp_rank * cp() * tp() + i));
  return ranks;
}

std::vector<int> ProcessGrid::expert_group(int world_rank) const {
  const Place p = place(world_rank);
  std::vector<int> ranks;
  for (std::int64_t i = 0; i < ep() * etp(); ++i) ranks.push_back(at(p.pp_rank, p.edp_rank * ep() * etp() + i));
  return ranks;
}

std::vector<int> ProcessGrid::replica_group(int world_rank, nn::Replication replication, const std::vector<std::int64_t>& pp_ranks) const {
  const Place p = place(world_rank);
  std::vector<int> ranks;
  for (const std::int64_t pp_rank : pp_ranks) {
    for (std::int64_t i = 0; i < stage_ranks(); ++i) {
      const Place other = place(at(pp_rank, i));
      const bool same = replication == nn::Replication::kDense ||
                        (replication == nn::Replication::kTensor && other.tp_rank == p.tp_rank) ||
                        (replication == nn::Replication::kExpert && other.ep_rank == p.ep_rank && other.etp_rank == p.etp_rank);
      if (same) ranks.push_back(at(pp_rank, i));
    }
  }
  return ranks;
}

}  // namespace hadal::parallel
