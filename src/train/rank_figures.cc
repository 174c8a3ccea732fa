#include "train/rank_figures.h"

#include "comm/position.h"

namespace hadal::train {

void add_rank_figures(report::MetricsRow& row, comm::Communicator& world) {
  if (world.size() == 1) return;
  const comm::Position position("figures of all ranks");
  const auto memory = static_cast<std::int64_t>(row.number("memory_bytes").value_or(0));
  row.set("memory_bytes_max", world.all_reduce_max(memory));
  row.set("waited_share_mean", world.all_reduce_sum(row.number("waited_share").value_or(0)) / world.size());
}

}  // namespace hadal::train
