#include "schedule/stage_runner.h"

#include <utility>

namespace hadal::schedule {

PairOutput StageRunner::forward_backward(int forward_slot, int forward_micro_batch, Tensor x, int backward_slot,
                                         int backward_micro_batch, Tensor d_y) {
  PairOutput output;
  output.y = forward(forward_slot, forward_micro_batch, std::move(x));
  output.d_x = backward_input(backward_slot, backward_micro_batch, std::move(d_y));
  backward_weight(backward_slot, backward_micro_batch);
  return output;
}

}  // namespace hadal::schedule
