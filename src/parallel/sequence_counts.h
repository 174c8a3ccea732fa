// Loads of sequences whose rows lie on several ranks: the ranks of one context-parallel times tensor-parallel group.
#pragma once

#include "comm/communicator.h"
#include "nn/moe/sequence_counts.h"

namespace hadal::parallel {

class GroupSequenceCounts final : public nn::SequenceCounts {
 public:
  /// `group`: the ranks that hold rows of the same sequences; kept.
  explicit GroupSequenceCounts(comm::Communicator& group) : group_(group) {}
  void sum(Stream&, View counts) override { group_.all_reduce_sum(counts); }

 private:
  comm::Communicator& group_;
};

}  // namespace hadal::parallel
