#include "schedule/action.h"

#include <fmt/core.h>

#include "core/error.h"

namespace hadal::schedule {
namespace {

std::string letter(const char* name, const Work& work) {
  return fmt::format("{}{} on stage {}", name, work.micro_batch, work.stage);
}

}  // namespace

Message message_of(const Action& action) {
  HADAL_CHECK(is_transfer(action.op), "{} is no transfer", describe(action));
  const int produced_for = action.payload == Payload::kActivation ? action.work.stage + 1 : action.work.stage - 1;
  return {action.payload, action.op == Op::kReceive ? action.work.stage : produced_for, action.work.micro_batch};
}

std::string describe(const Message& message) {
  return fmt::format("the {} of micro-batch {} for stage {}", message.payload == Payload::kActivation ? "activation" : "gradient",
                     message.micro_batch, message.stage);
}

std::string describe(const Action& action) {
  switch (action.op) {
    case Op::kForward:
      return letter("F", action.work);
    case Op::kBackward:
      return letter("B", action.work);
    case Op::kBackwardInput:
      return letter("I", action.work);
    case Op::kBackwardWeight:
      return letter("W", action.work);
    case Op::kForwardBackward:
      return letter("F", action.work) + " & " + letter("B", action.backward);
    case Op::kSend:
      return fmt::format("the send of {} to rank {}", describe(message_of(action)), action.peer);
    case Op::kReceive:
      return fmt::format("the receive of {} from rank {}", describe(message_of(action)), action.peer);
    case Op::kRelease:
      return fmt::format("the release of {} to rank {}", describe(message_of(action)), action.peer);
  }
  return "";
}

}  // namespace hadal::schedule
