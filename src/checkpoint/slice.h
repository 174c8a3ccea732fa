// A slice of a logical tensor: a box of its elements, packed row-major where it is held. What saving, loading and checking of
// sharded tensors is made of.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/shape.h"

namespace hadal::checkpoint {

/// Elements [begin, begin + extent) of each dim.
struct Slice {
  std::vector<std::int64_t> begin;
  std::vector<std::int64_t> extent;

  /// 1 for a scalar.
  std::int64_t numel() const;
  /// "[0:4, 8:16]".
  std::string str() const;
  bool operator==(const Slice&) const = default;
};

Slice whole_slice(const Shape& shape);

/// Rows [begin, end) of dim 0 of a slice with at least one dim.
Slice rows_of(const Slice& slice, std::int64_t begin, std::int64_t end);

/// The packed elements [begin, end) of a slice as boxes, in packed order: at most 2 * rank - 1 of them (a part of a row, whole
/// rows, a part of a row). The flat share of a parameter that ZeRO leaves on a rank is stored like this.
std::vector<Slice> boxes_of_range(const Slice& slice, std::int64_t begin, std::int64_t end);

bool overlap(const Slice& a, const Slice& b);

/// Two slices that overlap, or "they do not cover it"; empty when the slices, inside `shape` each, hold every element once.
std::string tiling_problem(const Shape& shape, std::span<const Slice* const> slices);

}  // namespace hadal::checkpoint
