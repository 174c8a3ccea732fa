#include "nn/sequence_shard.h"

#include <algorithm>

namespace hadal::nn {

std::vector<Segment> rows_in(std::span<const Segment> tokens, RowSpacing spacing) {
  const auto rows_before = [&](std::int64_t token) {
    return std::min((token + spacing.stride - 1) / spacing.stride, spacing.count);
  };
  std::vector<Segment> rows;
  for (const Segment& segment : tokens) {
    const std::int64_t first = rows_before(segment.position), end = rows_before(segment.position + segment.length);
    if (first < end) rows.push_back({first, end - first});
  }
  return rows;
}

void SequenceShard::gather(Stream& stream, std::int64_t batch, ConstView local, View whole) const {
  const std::int64_t width = whole.shape[1];
  const kernels::ConstHeads from = kernels::heads_of(local, 1, width, 0, width);
  const kernels::Heads to = kernels::heads_of(whole, 1, width, 0, width);
  gather(stream, batch, {1, whole_seq()}, {&from, 1}, {&to, 1});
}

void SequenceShard::reduce_scatter(Stream& stream, std::int64_t batch, ConstView whole, View local) const {
  const std::int64_t width = whole.shape[1];
  const kernels::ConstHeads from = kernels::heads_of(whole, 1, width, 0, width);
  const kernels::Heads to = kernels::heads_of(local, 1, width, 0, width);
  reduce_scatter(stream, batch, {1, whole_seq()}, {&from, 1}, {&to, 1});
}

}  // namespace hadal::nn
