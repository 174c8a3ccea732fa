#include "checkpoint/overlap.h"

#include "core/error.h"

namespace hadal::checkpoint {

Overlap::Overlap(const Slice& from, const Slice& to) {
  const std::size_t rank = from.begin.size();
  HADAL_CHECK(to.begin.size() == rank, "{} and {}", from.str(), to.str());
  std::int64_t from_stride = 1, to_stride = 1;
  bool inner = true;  // every dim behind is whole in both: the run goes on
  for (std::size_t d = rank; d-- > 0;) {
    const std::int64_t begin = std::max(from.begin[d], to.begin[d]);
    const std::int64_t count = std::min(from.begin[d] + from.extent[d], to.begin[d] + to.extent[d]) - begin;
    if (count <= 0) return;
    from_start_ += (begin - from.begin[d]) * from_stride;
    to_start_ += (begin - to.begin[d]) * to_stride;
    if (inner) {
      run_length_ *= count;
    } else {
      counts_.insert(counts_.begin(), count);
      from_strides_.insert(from_strides_.begin(), from_stride);
      to_strides_.insert(to_strides_.begin(), to_stride);
    }
    inner = inner && count == from.extent[d] && count == to.extent[d];
    from_stride *= from.extent[d];
    to_stride *= to.extent[d];
  }
  num_runs_ = 1;
  for (const std::int64_t count : counts_) num_runs_ *= count;
}

Overlap::Run Overlap::run(std::int64_t k) const {
  Run run{from_start_, to_start_, run_length_};
  for (std::size_t d = counts_.size(); d-- > 0;) {
    const std::int64_t index = k % counts_[d];
    k /= counts_[d];
    run.from += index * from_strides_[d];
    run.to += index * to_strides_[d];
  }
  return run;
}

std::int64_t Overlap::first_run(ElementRange in_from, ElementRange in_to) const {
  std::int64_t low = 0, high = num_runs_;
  while (low < high) {
    const std::int64_t middle = low + (high - low) / 2;
    const Run at = run(middle);
    if (at.from + at.count <= in_from.begin || at.to + at.count <= in_to.begin) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

bool Overlap::any(ElementRange in_from, ElementRange in_to) const {
  const std::int64_t first = first_run(in_from, in_to);
  if (first == num_runs_) return false;
  const Run head = run(first);
  const std::int64_t skip = std::max({in_from.begin - head.from, in_to.begin - head.to, std::int64_t{0}});
  return head.from + skip < in_from.end && head.to + skip < in_to.end;
}

ElementRange Overlap::from_range(ElementRange within) const {
  const std::int64_t first = first_run({0, 0}, within);
  if (first == num_runs_ || within.begin >= within.end) return {};
  const Run head = run(first);
  if (head.to >= within.end) return {};
  // The last run that begins before the end.
  std::int64_t low = first, high = num_runs_ - 1;
  while (low < high) {
    const std::int64_t middle = low + (high - low + 1) / 2;
    if (run(middle).to < within.end) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  const Run tail = run(low);
  const std::int64_t begin = head.from + std::max<std::int64_t>(0, within.begin - head.to);
  return {begin, std::min(tail.from + tail.count, tail.from + within.end - tail.to)};
}

}  // namespace hadal::checkpoint
