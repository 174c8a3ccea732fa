// Expert dispatch into room of a fixed size, planned where the choices lie: how many rows go where is never asked by the host, which
// knows the room (spec/gpu.md 9). Rows that find no place are counted in `overflow` and travel nowhere: a pass with any is no result, and
// whoever owns the counter sees to it that nothing comes of it (RefuseOverflow).
//
// Shape legend: N rows with K slots, each slot an expert or -1; D places (equal shares of the experts, in order) of `copies` destinations
// each; C rows of room to each destination, B = D copies C in all; S = min(K, experts of a place); E experts here, M rows of room for them.
// On CUDA, K is at most 32, D at most 1024, weights f32.
#pragma once

#include "kernels/op.h"
#include "core/tensor.h"

namespace hadal::kernels {

/// Each row once to every destination of the places of its experts, with the slots that are meant there. Of one destination the first C
/// rows have a place, in their order.
struct ExpertSends {
  static constexpr const char* kName = "expert_sends";
  std::int64_t num_experts = 0;  ///< of all places
  std::int64_t num_places = 1;   ///< D
  std::int64_t copies = 1;
  ConstView experts;  ///< I32 [N, K], a row's distinct
  ConstView weights;  ///< [N, K]
  View sent_row;      ///< I32 [B]: which row, -1 none; destination d has [d C, (d + 1) C), filled from its begin
  View sent_experts;  ///< I32 [B, S]: counted from the place's first, rising; then -1
  View sent_weights;  ///< [B, S], 0 where there is no expert
  View row_sends;     ///< I32 [N, min(D, K) copies]: sent rows, destinations rising; -1 without a place, and where there are no more
  View pair_sends;    ///< I32 [N, K, copies]: positions in [B, S], or -1
  View overflow;      ///< I64 [1], added to: rows without a place
};

/// Stable counting sort of the slots that name an expert, as DispatchPlan, of which the first M have a row.
struct ExpertRows {
  static constexpr const char* kName = "expert_rows";
  std::int64_t num_experts = 0;  ///< E
  std::int64_t room = 0;         ///< M
  ConstView experts;  ///< I32 [N, K]
  View offsets;       ///< I64 [E + 1]: rows of expert e are [offsets[e], offsets[e+1]); the last is at most M
  View pair_row;      ///< I32 [N, K], or -1
  View overflow;      ///< I64 [1], added to: slots without a row
};

/// y = x, or NaN where overflow > 0: a norm that leaves parameters as they were (kernels/adamw.h).
struct RefuseOverflow {
  static constexpr const char* kName = "refuse_overflow";
  ConstView overflow;  ///< I64 [1]
  ConstView x;         ///< F64 [1]
  View y;              ///< F64 [1]
};

void run(Stream& stream, const ExpertSends& args);
void run(Stream& stream, const ExpertRows& args);
void run(Stream& stream, const RefuseOverflow& args);

}  // namespace hadal::kernels
