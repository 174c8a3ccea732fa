// Context parallelism as a layer sees it: each sequence of S tokens lies in chunks over several ranks. Token-wise layers work on
// the rows that are here; attention needs the keys of whole sequences (spec/parallelism.md 9). Declared here, implemented over
// a communicator in parallel/.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/stream.h"
#include "core/tensor.h"
#include "kernels/heads.h"

namespace hadal::nn {

/// Consecutive tokens of a sequence that lie here, [position, position + length).
struct Segment {
  std::int64_t position = 0;
  std::int64_t length = 0;
};

/// Rows that stand at every `stride`-th token of a sequence, `count` of them: its tokens (1, S), or the compressed entries of
/// sparse attention, each at the first token of its block. A row lies where its token lies.
struct RowSpacing {
  std::int64_t stride = 1;
  std::int64_t count = 0;
};

/// Of rows of this spacing, those that lie in segments of tokens: segments counted in rows, ascending, none empty.
std::vector<Segment> rows_in(std::span<const Segment> tokens, RowSpacing spacing);

/// Shape legend: B sequences of S tokens in all, s of them here, in the segments' order.
class SequenceShard {
 public:
  virtual ~SequenceShard() = default;

  /// S.
  virtual std::int64_t whole_seq() const = 0;
  /// Ascending, disjoint; the lengths add up to s.
  virtual std::span<const Segment> segments() const = 0;

  /// For each of some matrices with rows of one spacing: local [B*n, heads, w] of every rank, n its own rows -> whole
  /// [B*count, heads, w], rows in order of position. One exchange for all of them; one dtype.
  virtual void gather(Stream& stream, std::int64_t batch, RowSpacing spacing, std::span<const kernels::ConstHeads> local,
                      std::span<const kernels::Heads> whole) const = 0;
  /// Transpose of gather: local = the rows that lie here of the sum of every rank's whole, ranks in order.
  virtual void reduce_scatter(Stream& stream, std::int64_t batch, RowSpacing spacing, std::span<const kernels::ConstHeads> whole,
                              std::span<const kernels::Heads> local) const = 0;

  /// Tokens, one matrix: local [B*s, w] -> whole [B*S, w].
  void gather(Stream& stream, std::int64_t batch, ConstView local, View whole) const;
  void reduce_scatter(Stream& stream, std::int64_t batch, ConstView whole, View local) const;
};

}  // namespace hadal::nn
