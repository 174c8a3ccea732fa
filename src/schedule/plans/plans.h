// The schedules. Each is a file with two functions: what it needs, and what a rank does. Adding one takes a file here and a
// row in kinds.cc.
#pragma once

#include <string>
#include <vector>

#include "schedule/plan.h"
#include "schedule/rank_list.h"

namespace hadal::schedule::plans {

/// All F, then all B. Bubble (P-1)(F+B); every micro-batch's activations are alive at once.
void gpipe(RankList& list);
/// spec/parallelism.md 5.1. Bubble (P-1)(F+B), at most P - r micro-batches alive on rank r.
void one_f_one_b(RankList& list);
/// spec/parallelism.md 5.2. Bubble (P-1)(F+B)/v for v chunks per rank.
void interleaved(RankList& list);
/// spec/parallelism.md 5.3. Bubble (P-1)(F+I-W) with the memory of 1F1B's first rank on every rank.
void zero_bubble_h1(RankList& list);
/// spec/parallelism.md 5.4. Bubble (P-1)F, the ramp alone, when F = I = W; 2P - 1 micro-batches alive.
void zero_bubble_h2(RankList& list);
/// spec/parallelism.md 5.7. Bubble (P-1)(F&B+B-3W) of half-size stages.
void dualpipe_v(RankList& list);
/// spec/parallelism.md 5.6. Bubble (P/2-1)(F&B+B-3W), two copies of the model.
void dualpipe(RankList& list);

/// Why the schedule cannot be and what to change, in one sentence; empty when it can.
std::string refuse_interleaved(const Request& request);
std::string refuse_dualpipe_v(const Request& request);
std::string refuse_dualpipe(const Request& request);

/// Evaluation: F of every micro-batch through any placement, in the order in which unit-time stages would come to them, deepest
/// stage first. Any number of micro-batches.
std::vector<ActionList> forward_only(const Placement& placement);

}  // namespace hadal::schedule::plans
