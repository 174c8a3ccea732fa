// nn::SequenceShard over a context-parallel group, zigzag (spec/parallelism.md 9): each sequence is cut into 2C chunks, rank i of
// C holds chunks i and 2C-1-i, so that every rank has as many (query, key) pairs of a causal mask as any other.
//
// A gather sends each rank's rows once, several matrices packed into one message; ranks may hold different numbers of rows
// (compressed entries), then messages are padded to the longest.
#pragma once

#include <vector>

#include "comm/communicator.h"
#include "nn/sequence_shard.h"

namespace hadal::parallel {

class ContextParallel : public nn::SequenceShard {
 public:
  /// `cp` is kept; 2 * its size divides `seq` (else a UserError).
  ContextParallel(comm::Communicator& cp, std::int64_t seq);

  std::int64_t whole_seq() const override { return seq_; }
  std::span<const nn::Segment> segments() const override { return segments_[static_cast<std::size_t>(cp_.rank())]; }
  using nn::SequenceShard::gather;
  using nn::SequenceShard::reduce_scatter;
  void gather(Stream& stream, std::int64_t batch, nn::RowSpacing spacing, std::span<const kernels::ConstHeads> local,
              std::span<const kernels::Heads> whole) const override;
  void reduce_scatter(Stream& stream, std::int64_t batch, nn::RowSpacing spacing, std::span<const kernels::ConstHeads> whole,
                      std::span<const kernels::Heads> local) const override;

 private:
  comm::Communicator& cp_;
  std::int64_t seq_;
  std::vector<std::vector<nn::Segment>> segments_;  ///< of each rank; neighbouring chunks are one segment
};

}  // namespace hadal::parallel
