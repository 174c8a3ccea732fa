// Mirrors of the layers on a tape: what each takes and keeps in forward, backward_input and backward_weight (nn/layer.h), line by
// line like the layer it is named after. Their measure is tests/plan/memory_test.cc, which holds them to the allocator's peak.
#pragma once

#include <memory>

#include "plan/rank_shape.h"
#include "plan/tape.h"

namespace hadal::plan {

/// Of one micro-batch.
struct SavedMemory {
  virtual ~SavedMemory() = default;
};
using SavedMemoryPtr = std::unique_ptr<SavedMemory>;

class LayerMemory {
 public:
  virtual ~LayerMemory() = default;
  /// Returns the output.
  virtual Held forward(Tape& tape, SavedMemoryPtr& saved) const = 0;
  /// Returns the input's gradient.
  virtual Held backward_input(Tape& tape, SavedMemory& saved) const = 0;
  virtual void backward_weight(Tape& tape, SavedMemory& saved) const = 0;
};
using LayerMemoryPtr = std::unique_ptr<LayerMemory>;

/// `shape` is kept by reference. [T, d] -> [T, d] with the heads of a tp rank.
LayerMemoryPtr attention_memory(const RankShape& shape, bool sparse);
/// `width`: of the share here; over `rows` rows.
LayerMemoryPtr feed_forward_memory(const RankShape& shape, std::int64_t width, std::int64_t rows);
LayerMemoryPtr moe_memory(const RankShape& shape);
/// A layer over [T, d] between the borders of tensor parallelism; [T', d] outside.
LayerMemoryPtr between_borders(const RankShape& shape, LayerMemoryPtr inner);
/// Of the layer `layer_idx`, MTP modules after the main ones.
LayerMemoryPtr block_memory(const RankShape& shape, std::int64_t layer_idx);

}  // namespace hadal::plan
