#include "checkpoint/slice.h"

#include <algorithm>

#include "core/error.h"

namespace hadal::checkpoint {
namespace {

/// Appends the boxes of elements [begin, end) of `slice`, looking at dims from `dim` on: those before have extent 1.
void append_boxes(const Slice& slice, std::size_t dim, std::int64_t begin, std::int64_t end, std::vector<Slice>& boxes) {
  if (begin == end) return;
  if (end - begin == slice.numel()) {
    boxes.push_back(slice);
    return;
  }
  const std::int64_t row_numel = slice.numel() / slice.extent[dim];
  const auto rows = [&](std::int64_t first, std::int64_t last) {
    Slice part = slice;
    part.begin[dim] += first;
    part.extent[dim] = last - first;
    return part;
  };
  std::int64_t first = begin / row_numel;
  const std::int64_t last = end / row_numel;
  if (const std::int64_t cut = begin - first * row_numel; cut > 0) {
    const std::int64_t stop = std::min(end - first * row_numel, row_numel);
    append_boxes(rows(first, first + 1), dim + 1, cut, stop, boxes);
    ++first;
  }
  if (first < last) boxes.push_back(rows(first, last));
  if (first <= last && last * row_numel < end) append_boxes(rows(last, last + 1), dim + 1, 0, end - last * row_numel, boxes);
}

}  // namespace

std::int64_t Slice::numel() const {
  std::int64_t product = 1;
  for (const std::int64_t count : extent) product *= count;
  return product;
}

std::string Slice::str() const {
  std::string text = "[";
  for (std::size_t d = 0; d < begin.size(); ++d)
    text += fmt::format("{}{}:{}", d > 0 ? ", " : "", begin[d], begin[d] + extent[d]);
  return text + "]";
}

Slice whole_slice(const Shape& shape) {
  const auto extents = shape.extents();
  return {std::vector<std::int64_t>(extents.size(), 0), {extents.begin(), extents.end()}};
}

Slice rows_of(const Slice& slice, std::int64_t begin, std::int64_t end) {
  HADAL_CHECK(begin >= 0 && begin <= end && end <= slice.extent.at(0), "rows [{}, {}) of {}", begin, end, slice.str());
  Slice rows = slice;
  rows.begin[0] += begin;
  rows.extent[0] = end - begin;
  return rows;
}

std::vector<Slice> boxes_of_range(const Slice& slice, std::int64_t begin, std::int64_t end) {
  HADAL_CHECK(begin >= 0 && begin <= end && end <= slice.numel(), "elements [{}, {}) of {}", begin, end, slice.str());
  std::vector<Slice> boxes;
  append_boxes(slice, 0, begin, end, boxes);
  return boxes;
}

bool overlap(const Slice& a, const Slice& b) {
  for (std::size_t d = 0; d < a.begin.size(); ++d) {
    if (a.begin[d] + a.extent[d] <= b.begin[d] || b.begin[d] + b.extent[d] <= a.begin[d]) return false;
  }
  return true;
}

std::string tiling_problem(const Shape& shape, std::span<const Slice* const> slices) {
  std::vector<const Slice*> sorted(slices.begin(), slices.end());
  std::ranges::sort(sorted, {}, [](const Slice* slice) { return slice->begin.empty() ? 0 : slice->begin[0]; });
  std::int64_t covered = 0;
  for (std::size_t i = 0; i < sorted.size(); ++i) {
    covered += sorted[i]->numel();
    for (std::size_t j = i + 1; j < sorted.size(); ++j) {
      // Sorted by dim 0: nothing after this one can meet it.
      if (shape.rank() > 0 && sorted[j]->begin[0] >= sorted[i]->begin[0] + sorted[i]->extent[0]) break;
      if (overlap(*sorted[i], *sorted[j])) return fmt::format("slices {} and {} overlap", sorted[i]->str(), sorted[j]->str());
    }
  }
  if (covered != shape.numel()) return fmt::format("slices hold {} of {} elements: they do not cover it", covered, shape.numel());
  return "";
}

}  // namespace hadal::checkpoint
