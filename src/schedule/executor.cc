#include "schedule/executor.h"

#include <chrono>
#include <utility>

#include "comm/position.h"
#include "core/error.h"
#include "schedule/dependency.h"

namespace hadal::schedule {
namespace {

using Clock = std::chrono::steady_clock;

/// For the ledger: what a rank does, or waits for, at an action.
const char* phase_of(const Action& action) {
  switch (action.op) {
    case Op::kForward:
      return "forward";
    case Op::kBackward:
      return "backward";
    case Op::kBackwardInput:
      return "input gradients";
    case Op::kBackwardWeight:
      return "weight gradients";
    case Op::kForwardBackward:
      return "forward and backward";
    default:
      return action.payload == Payload::kActivation ? "sending forward" : "sending backward";
  }
}

/// A message has a tag of its own, so that two ends which disagree wait, and are found, instead of computing with each other's
/// micro-batches. The wrap keeps within what MPI promises; messages that share a tag keep their order, which is the same on both
/// ends.
constexpr std::size_t kTags = 16384;

/// A tensor between two stages. The handle goes first: it may still use the tensor.
struct Crossing {
  Tensor tensor;
  comm::Handle transfer;
};

class Run {
 public:
  Run(const Plan& plan, comm::Communicator& pipeline, StageRunner& stages)
      : placement_(plan.placement),
        list_(plan.ranks[static_cast<std::size_t>(pipeline.rank())]),
        pipeline_(pipeline),
        stages_(stages),
        crossings_(num_messages(plan.placement)),
        outputs_(num_messages(plan.placement)) {}

  Execution all() {
    Execution execution;
    const Clock::time_point begin = Clock::now();
    const auto since_begin = [&] { return std::chrono::duration<double>(Clock::now() - begin).count(); };
    for (const Action& action : list_) {
      const comm::Position position(phase_of(action), action.work.micro_batch);
      if (is_transfer(action.op)) {
        const double start = since_begin();
        transfer(action);
        execution.spans.push_back({start, since_begin()});
        continue;
      }
      for (const Edge& edge : inputs_of(placement_, action)) crossing(edge.message).transfer.wait();
      const double start = since_begin();
      compute(action);
      execution.spans.push_back({start, since_begin()});
      execution.busy += execution.spans.back().end - start;
    }
    execution.seconds = since_begin();
    return execution;
  }

 private:
  Crossing& crossing(const Message& message) { return crossings_[message_index(placement_, message)]; }

  void transfer(const Action& action) {
    const Message message = message_of(action);
    const int tag = static_cast<int>(message_index(placement_, message) % kTags);
    Crossing& at = crossing(message);
    switch (action.op) {
      case Op::kSend:
        at.transfer = pipeline_.start_send(std::as_const(at.tensor).view(), action.peer, tag);
        break;
      case Op::kReceive: {
        const Boundary boundary = boundary_of(action.work, message);
        at.tensor = Tensor::empty(boundary.shape, boundary.dtype, boundary.device);
        at.transfer = pipeline_.start_receive(at.tensor.view(), action.peer, tag);
        break;
      }
      default:
        at.transfer.wait();
        at.tensor.reset();
    }
  }

  /// Of a message that this rank consumes: an activation's is asked for, a gradient's is that of the output it belongs to.
  Boundary boundary_of(const Work& work, const Message& message) {
    if (message.payload == Payload::kActivation) return stages_.boundary(work.slot, work.micro_batch);
    return outputs_[message_index(placement_, {Payload::kActivation, message.stage + 1, message.micro_batch})];
  }

  void compute(const Action& action) {
    const Work& work = action.work;
    Tensor x, d_y;
    for (const Edge& edge : inputs_of(placement_, action)) {
      (edge.message.payload == Payload::kActivation ? x : d_y) = std::move(crossing(edge.message).tensor);
    }
    PairOutput output;
    switch (action.op) {
      case Op::kForward:
        output.y = stages_.forward(work.slot, work.micro_batch, std::move(x));
        break;
      case Op::kBackward:
        output.d_x = stages_.backward(work.slot, work.micro_batch, std::move(d_y));
        break;
      case Op::kBackwardInput:
        output.d_x = stages_.backward_input(work.slot, work.micro_batch, std::move(d_y));
        break;
      case Op::kBackwardWeight:
        stages_.backward_weight(work.slot, work.micro_batch);
        break;
      default:
        output = stages_.forward_backward(work.slot, work.micro_batch, std::move(x), action.backward.slot,
                                          action.backward.micro_batch, std::move(d_y));
    }
    for (const Edge& edge : outputs_of(placement_, action)) {
      const bool forward = edge.message.payload == Payload::kActivation;
      hand_on(edge, forward ? std::move(output.y) : std::move(output.d_x));
    }
  }

  /// Checks that a stage returned what its neighbour expects, and keeps it for the neighbour.
  void hand_on(const Edge& edge, Tensor tensor) {
    HADAL_CHECK(tensor.defined(), "slot {} returned nothing for {}", edge.work.slot, describe(edge.message));
    if (edge.message.payload == Payload::kActivation) {
      outputs_[message_index(placement_, edge.message)] = {tensor.shape(), tensor.dtype(), tensor.device()};
    } else {
      const Boundary expected = stages_.boundary(edge.work.slot, edge.work.micro_batch);
      HADAL_CHECK(tensor.shape() == expected.shape && tensor.dtype() == expected.dtype,
                  "slot {} returned {} {} as {}, expected {} {}", edge.work.slot, name_of(tensor.dtype()), tensor.shape().str(),
                  describe(edge.message), name_of(expected.dtype), expected.shape.str());
    }
    crossing(edge.message).tensor = std::move(tensor);
  }

  const Placement& placement_;
  const ActionList& list_;
  comm::Communicator& pipeline_;
  StageRunner& stages_;
  std::vector<Crossing> crossings_;  // by message
  std::vector<Boundary> outputs_;    // by message: of the activations that this rank handed on
};

}  // namespace

Execution execute(const Plan& plan, comm::Communicator& pipeline, StageRunner& stages) {
  HADAL_CHECK(pipeline.size() == plan.placement.num_ranks(), "a plan for {} ranks on {}", plan.placement.num_ranks(),
              pipeline.size());
  pipeline.open_channels();
  return Run(plan, pipeline, stages).all();
}

}  // namespace hadal::schedule
