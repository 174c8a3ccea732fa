// Who waits for whom: the one place that knows how the computations of a plan depend on each other across stages.
#pragma once

#include <array>

#include "schedule/plan.h"

namespace hadal::schedule {

/// A message and the work of this rank that consumes or produces it.
struct Edge {
  Message message;
  Work work;
};

/// At most two, those of the forward half first.
class Edges {
 public:
  void add(const Message& message, const Work& work) { edges_[static_cast<std::size_t>(count_++)] = {message, work}; }
  const Edge* begin() const { return edges_.data(); }
  const Edge* end() const { return edges_.data() + count_; }

 private:
  std::array<Edge, 2> edges_{};
  int count_ = 0;
};

/// What a computation consumes: nothing from outside for the first stage's F (tokens) and the last stage's B (the loss), nor
/// for W.
Edges inputs_of(const Placement& placement, const Action& action);
/// What it hands on: nothing for the last stage's F and the first stage's B.
Edges outputs_of(const Placement& placement, const Action& action);

/// Where a message is produced, and where it is consumed.
Location producer(const Placement& placement, const Message& message);
Location consumer(const Placement& placement, const Message& message);

/// For tables with one entry per message: 0 .. num_messages - 1.
std::size_t message_index(const Placement& placement, const Message& message);
std::size_t num_messages(const Placement& placement);

}  // namespace hadal::schedule
