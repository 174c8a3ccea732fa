// Block selection under tensor parallelism (spec/model.md 9.4): where the heads of one selection group lie on several ranks, each
// knows the importance of its own heads, and all must choose by the sum. Declared here, implemented over a communicator in
// parallel/.
#pragma once

#include "core/stream.h"
#include "core/tensor.h"

namespace hadal::nn {

class SelectionSum {
 public:
  virtual ~SelectionSum() = default;
  /// importance [rows, groups, blocks] = its sum over the ranks that share a selection group; the same bits on each of them.
  virtual void sum(Stream& stream, View importance) const = 0;
};

}  // namespace hadal::nn
