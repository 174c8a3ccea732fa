// What two slices of one logical tensor have in common, as runs of elements that are consecutive in both packed forms.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "checkpoint/slice.h"

namespace hadal::checkpoint {

/// Packed elements [begin, end).
struct ElementRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;
};

class Overlap {
 public:
  Overlap(const Slice& from, const Slice& to);

  bool empty() const { return num_runs_ == 0; }
  std::int64_t num_runs() const { return num_runs_; }

  /// `count` elements from packed element `from` of the one on are those from `to` of the other on.
  struct Run {
    std::int64_t from = 0;
    std::int64_t to = 0;
    std::int64_t count = 0;
  };
  /// Run k; ascending on both sides.
  Run run(std::int64_t k) const;

  /// The elements of `from` between the first and the last that lie in `within` of `to`; empty (0, 0) when none does.
  ElementRange from_range(ElementRange within) const;

  /// Whether a run has an element inside both ranges.
  bool any(ElementRange in_from, ElementRange in_to) const;

  /// Calls body(Run) for every run, cut to elements `in_from` of the one and `in_to` of the other, in order.
  template <class Body>
  void for_each(ElementRange in_from, ElementRange in_to, const Body& body) const {
    for (std::int64_t k = first_run(in_from, in_to); k < num_runs_; ++k) {
      Run cut = run(k);
      if (cut.from >= in_from.end || cut.to >= in_to.end) return;
      const std::int64_t skip = std::max({in_from.begin - cut.from, in_to.begin - cut.to, std::int64_t{0}});
      const std::int64_t count = std::min({cut.count, in_from.end - cut.from, in_to.end - cut.to}) - skip;
      if (count > 0) body(Run{cut.from + skip, cut.to + skip, count});
    }
  }

 private:
  /// The first run that ends behind both begins.
  std::int64_t first_run(ElementRange in_from, ElementRange in_to) const;

  std::vector<std::int64_t> counts_;        ///< of the outer dims; the rest is one run
  std::vector<std::int64_t> from_strides_;  ///< of the outer dims, in elements of `from`
  std::vector<std::int64_t> to_strides_;
  std::int64_t from_start_ = 0;
  std::int64_t to_start_ = 0;
  std::int64_t run_length_ = 1;
  std::int64_t num_runs_ = 0;
};

}  // namespace hadal::checkpoint
