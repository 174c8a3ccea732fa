// What the executor drives: the stages of one pipeline rank. The model implements it; tests use a fake one.
//
// Calls come in the order of the plan. For one (slot, micro-batch) that is forward, then backward_input, then backward_weight; on
// one slot each of the three follows the order of the micro-batches. Whatever a backward needs is the runner's to keep from
// forward to backward_weight.
#pragma once

#include "core/tensor.h"

namespace hadal::schedule {

/// What crosses from one stage to the next. A gradient has the shape, dtype and device of the tensor it belongs to.
struct Boundary {
  Shape shape{0};
  DType dtype = DType::kF32;
  Device device{};
};

/// What an overlapped pair hands on.
struct PairOutput {
  Tensor y;    ///< of the forward half; undefined on the last stage
  Tensor d_x;  ///< of the backward half; undefined on the first stage
};

class StageRunner {
 public:
  virtual ~StageRunner() = default;

  /// What enters `slot` for `micro_batch`; may differ by micro-batch. Not asked of the first stage.
  virtual Boundary boundary(int slot, int micro_batch) = 0;

  /// x is undefined on the first stage, which reads tokens. Returns what to hand on; undefined on the last stage, which keeps its
  /// loss.
  virtual Tensor forward(int slot, int micro_batch, Tensor x) = 0;
  /// d_y is undefined on the last stage, which starts from its loss. Returns d_x; undefined on the first stage.
  virtual Tensor backward_input(int slot, int micro_batch, Tensor d_y) = 0;
  virtual void backward_weight(int slot, int micro_batch) = 0;
  /// B: both in one go, so that a model may free each layer's memory as it goes. Here one runs after the other.
  virtual Tensor backward(int slot, int micro_batch, Tensor d_y);

  /// F of one micro-batch and B of another, which do not depend on each other: a model may interleave their segments, so that the
  /// network traffic of one hides under the compute of the other (spec/parallelism.md 4). Here one runs after the other.
  virtual PairOutput forward_backward(int forward_slot, int forward_micro_batch, Tensor x, int backward_slot,
                                      int backward_micro_batch, Tensor d_y);
};

}  // namespace hadal::schedule
