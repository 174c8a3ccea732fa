// Which row of a share of the vocabulary an id is: what a rank looks up and adds to where the embedding is split.
#pragma once

#include "kernels/op.h"
#include "core/tensor.h"

namespace hadal::kernels {

/// rows[i] = ids[i] - begin where ids[i] is in [begin, end), else -1.
struct LocalRows {
  static constexpr const char* kName = "local_rows";
  ConstView ids;  ///< I32
  View rows;      ///< I32, as many; may be ids' own memory
  std::int64_t begin = 0;
  std::int64_t end = 0;
};

void run(Stream& stream, const LocalRows& args);

}  // namespace hadal::kernels
