// Context parallelism as a layer sees it: each sequence of S tokens lies in chunks over several ranks. Token-wise layers work on
// the rows that are here; attention needs the keys of whole sequences (spec/parallelism.md 9). Declared here, implemented over
// a communicator in parallel/.
#pragma once

#include <cstdint>
#include <span>

#include "core/stream.h"
#include "core/tensor.h"

namespace hadal::nn {

/// Consecutive tokens of a sequence that lie here, [position, position + length).
struct Segment {
  std::int64_t position = 0;
  std::int64_t length = 0;
};

/// Shape legend: B sequences of S tokens in all, s of them here, in the segments' order.
class SequenceShard {
 public:
  virtual ~SequenceShard() = default;

  /// S.
  virtual std::int64_t whole_seq() const = 0;
  /// Ascending, disjoint; the lengths add up to s.
  virtual std::span<const Segment> segments() const = 0;
  /// local [B*s, w] of every rank -> whole [B*S, w], rows in order of position.
  virtual void gather(Stream& stream, std::int64_t batch, ConstView local, View whole) const = 0;
  /// Transpose of gather: local [B*s, w] = the rows that lie here of the sum of every rank's whole [B*S, w], ranks in order.
  virtual void reduce_scatter(Stream& stream, std::int64_t batch, ConstView whole, View local) const = 0;
};

}  // namespace hadal::nn
