#include "model/segment.h"

#include "comm/position.h"
#include "core/profile_range.h"

namespace hadal::model {
namespace {

/// A list and how far it has run.
class Turns {
 public:
  Turns(const SegmentList& list, int micro_batch) : list_(list), micro_batch_(micro_batch) {}

  bool done() const { return next_ == list_.segments.size(); }

  void take() {
    for (int computed = 0; !done(); ++computed) {
      const Segment& segment = list_.segments[next_];
      const bool network = segment.kind == Segment::Kind::kNetwork;
      if (computed == kMostCompute && !network) return;
      const comm::Position position(list_.phase, micro_batch_, segment.layer_idx);
      const ProfileRange range(segment.name);
      segment.run();
      ++next_;
      if (network) return;
    }
  }

 private:
  static constexpr int kMostCompute = 2;

  const SegmentList& list_;
  int micro_batch_;
  std::size_t next_ = 0;
};

}  // namespace

void run_segments(const SegmentList& list) {
  Turns turns(list, comm::Position::kInherit);
  while (!turns.done()) turns.take();
}

void run_in_turns(const SegmentList& forward, int forward_micro_batch, const SegmentList& backward, int backward_micro_batch) {
  Turns f(forward, forward_micro_batch), b(backward, backward_micro_batch);
  while (!f.done() || !b.done()) {
    b.take();
    f.take();
  }
}

}  // namespace hadal::model
