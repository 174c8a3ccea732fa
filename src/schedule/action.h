// What a rank does in one step, one entry at a time. A schedule is nothing but such lists (spec/parallelism.md 5).
//
// Stages are the pieces of the model in the order of its layers, 0 .. num_stages - 1. A rank holds one or more of them in
// slots 0, 1, ...; Placement says which. Micro-batches are numbered through the global batch, 0 .. num_micro_batches - 1.
#pragma once

#include <cstdint>
#include <string>

namespace hadal::schedule {

enum class Op : std::uint8_t {
  kForward,          ///< F
  kBackward,         ///< B: input gradients and weight gradients in one go
  kBackwardInput,    ///< I: input gradients alone; W of the same micro-batch follows
  kBackwardWeight,   ///< W
  kForwardBackward,  ///< F of one micro-batch and B of another, overlapped
  kSend,             ///< starts to send what an earlier F, B or I of this list produced
  kReceive,          ///< posts the receive of what a later F, B or I of this list consumes
  kRelease,          ///< what was sent has arrived: waits for that and frees the tensor
};

enum class Payload : std::uint8_t { kActivation, kGradient };

/// One micro-batch on one stage of this rank.
struct Work {
  int slot = 0;
  int stage = 0;
  int micro_batch = 0;

  bool operator==(const Work&) const = default;
};

struct Action {
  Op op = Op::kForward;
  Work work;        ///< kForwardBackward: the forward half; kSend, kRelease: who produced; kReceive: who consumes
  Work backward{};  ///< kForwardBackward: the backward half
  Payload payload = Payload::kActivation;  ///< transfers
  int peer = -1;                           ///< transfers: the pipeline rank at the other end

  bool operator==(const Action&) const = default;
};

/// No computation.
inline bool is_transfer(Op op) { return op == Op::kSend || op == Op::kReceive || op == Op::kRelease; }
/// F or F&B: `work` is run forward.
inline bool runs_forward(Op op) { return op == Op::kForward || op == Op::kForwardBackward; }
/// B, I or F&B: input gradients come into being.
inline bool runs_backward(Op op) { return op == Op::kBackward || op == Op::kBackwardInput || op == Op::kForwardBackward; }
/// B, W or F&B: weight gradients are complete and the micro-batch's activations may go.
inline bool runs_weight(Op op) { return op == Op::kBackward || op == Op::kBackwardWeight || op == Op::kForwardBackward; }
/// The work whose gradients a B, I, W or F&B computes.
inline const Work& backward_work(const Action& action) {
  return action.op == Op::kForwardBackward ? action.backward : action.work;
}

/// What travels: named by the stage that consumes it, so that both ends of a transfer have the same name.
struct Message {
  Payload payload = Payload::kActivation;
  int stage = 0;
  int micro_batch = 0;

  bool operator==(const Message&) const = default;
};

/// Of a transfer.
Message message_of(const Action& action);

/// "F3 on stage 2", "F3 on stage 2 & B1 on stage 5", "the send of the gradient of micro-batch 3 for stage 1 to rank 1".
std::string describe(const Action& action);
std::string describe(const Message& message);

}  // namespace hadal::schedule
