#include "schedule/dependency.h"

namespace hadal::schedule {

Edges inputs_of(const Placement& placement, const Action& action) {
  Edges edges;
  if (runs_forward(action.op) && action.work.stage > 0) {
    edges.add({Payload::kActivation, action.work.stage, action.work.micro_batch}, action.work);
  }
  if (runs_backward(action.op) && !placement.is_last(backward_work(action).stage)) {
    const Work& work = backward_work(action);
    edges.add({Payload::kGradient, work.stage, work.micro_batch}, work);
  }
  return edges;
}

Edges outputs_of(const Placement& placement, const Action& action) {
  Edges edges;
  if (runs_forward(action.op) && !placement.is_last(action.work.stage)) {
    edges.add({Payload::kActivation, action.work.stage + 1, action.work.micro_batch}, action.work);
  }
  if (runs_backward(action.op) && backward_work(action).stage > 0) {
    const Work& work = backward_work(action);
    edges.add({Payload::kGradient, work.stage - 1, work.micro_batch}, work);
  }
  return edges;
}

Location producer(const Placement& placement, const Message& message) {
  const int stage = message.payload == Payload::kActivation ? message.stage - 1 : message.stage + 1;
  return placement.locate(stage, message.micro_batch);
}

Location consumer(const Placement& placement, const Message& message) {
  return placement.locate(message.stage, message.micro_batch);
}

std::size_t message_index(const Placement& placement, const Message& message) {
  const int channel = 2 * message.stage + (message.payload == Payload::kGradient ? 1 : 0);
  return static_cast<std::size_t>(channel * placement.num_micro_batches() + message.micro_batch);
}

std::size_t num_messages(const Placement& placement) {
  return static_cast<std::size_t>(2 * placement.num_stages() * placement.num_micro_batches());
}

}  // namespace hadal::schedule
