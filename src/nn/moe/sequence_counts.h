// The rows of a sequence may lie on several ranks (sequence and context parallelism); its balance loss needs the load of the
// whole sequence. Declared here, implemented over a communicator in parallel/.
#pragma once

#include "core/stream.h"
#include "core/tensor.h"

namespace hadal::nn {

class SequenceCounts {
 public:
  virtual ~SequenceCounts() = default;
  /// I64: in place, the sum over the ranks that hold rows of the same sequences.
  virtual void sum(Stream& stream, View counts) = 0;
};

}  // namespace hadal::nn
