#include "schedule/stage_runner.h"

#include <utility>

namespace hadal::schedule {

Tensor StageRunner::backward(int slot, int micro_batch, Tensor d_y) {
  Tensor d_x = backward_input(slot, micro_batch, std::move(d_y));
  backward_weight(slot, micro_batch);
  return d_x;
}

PairOutput StageRunner::forward_backward(int forward_slot, int forward_micro_batch, Tensor x, int backward_slot,
                                         int backward_micro_batch, Tensor d_y) {
  PairOutput output;
  output.y = forward(forward_slot, forward_micro_batch, std::move(x));
  output.d_x = backward(backward_slot, backward_micro_batch, std::move(d_y));
  return output;
}

}  // namespace hadal::schedule
