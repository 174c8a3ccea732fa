// Where a rank is in its step, for the ledger, the sentence about a hang and the timeline of a profiler (NVTX):
//
//   const comm::Position position("backward", micro_batch, layer);
//
// Nested ones refine it: what is not given is taken from the enclosing one, which comes back on destruction. Costs some 10 ns.
#pragma once

#include "core/profile_range.h"

namespace hadal::comm {

class Position {
 public:
  static constexpr int kInherit = -2;
  static constexpr int kNone = -1;

  /// `phase`: a string literal of at most 23 characters ("forward", "optimizer"), or nullptr to keep the enclosing one.
  explicit Position(const char* phase, int micro_batch = kInherit, int layer = kInherit);
  ~Position();
  Position(const Position&) = delete;
  Position& operator=(const Position&) = delete;

  struct Values {
    const char* phase = "";
    int micro_batch = kNone;
    int layer = kNone;
  };
  /// Of the calling thread.
  static const Values& current();

 private:
  Values enclosing_;
  ProfileRange range_;
};

}  // namespace hadal::comm
