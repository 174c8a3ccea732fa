// A pass of one micro-batch through layers, cut where it waits for tokens that travel: an ordered list of segments (design.md 3).
// A network segment ends by starting a transfer for which the next segment of its list waits first; what runs in between hides it.
// Two passes that do not depend on each other, a forward and a backward, are run in turns, so that the tokens of one travel while
// the other computes (spec/parallelism.md 4).
//
// The order follows from places in the lists alone, never from time: ranks that run lists of the same form make the same calls in
// the same order, as their groups need.
#pragma once

#include <functional>
#include <utility>
#include <vector>

namespace hadal::model {

struct Segment {
  enum class Kind { kCompute, kNetwork };

  const char* name;  ///< "attention", "dispatch"
  Kind kind;
  int layer_idx;     ///< of the model, or comm::Position::kInherit
  std::function<void()> run;
};

/// In the order in which they run, each once.
struct SegmentList {
  const char* phase;  ///< for the ledger: "forward", "backward"
  std::vector<Segment> segments;

  void compute(const char* name, int layer_idx, std::function<void()> run) {
    segments.push_back({name, Segment::Kind::kCompute, layer_idx, std::move(run)});
  }
  void network(const char* name, int layer_idx, std::function<void()> run) {
    segments.push_back({name, Segment::Kind::kNetwork, layer_idx, std::move(run)});
  }
};

/// One after the other.
void run_segments(const SegmentList& list);

/// Both lists in turns, backward first (its first tokens may leave at once); what is left of the longer one at the end. A turn is a
/// network segment with at most two compute segments before it, or two compute segments alone: about the half of a layer.
/// The micro-batches are for the ledger.
void run_in_turns(const SegmentList& forward, int forward_micro_batch, const SegmentList& backward, int backward_micro_batch);

}  // namespace hadal::model
