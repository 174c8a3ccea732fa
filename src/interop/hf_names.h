// The tensors that an HF directory of a given shape holds: the one list that export writes, import wants and the audit compares
// with (spec/interop.md 3.1, 3.4, 3.7, 7.3). A checkpoint's logical tensors have the same names, MTP's copies of embedding and
// head apart.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "config/config.h"
#include "core/shape.h"

namespace hadal::interop {

struct ExpectedTensor {
  std::string name;     ///< in the HF directory
  std::string logical;  ///< in a checkpoint; another one for MTP's copies of the embedding and the head
  Shape shape;
  std::int64_t layer = -1;  ///< -1: embedding, final norm, head
  bool keep_f32 = false;    ///< the balancing bias: F32 whatever the weights' dtype

  /// A copy under another name of a tensor that is in the list itself.
  bool is_copy() const { return name != logical; }
};

/// In model order: embedding, layers, MTP layers, final norm, head.
std::vector<ExpectedTensor> expected_tensors(const ModelSection& model);

}  // namespace hadal::interop
