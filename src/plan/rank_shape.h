// The sizes of one rank's work on one micro-batch, which memory, bytes on the wire and time are all computed from.
#pragma once

#include "config/machine_section.h"
#include "plan/layout.h"
#include "plan/tape.h"

namespace hadal::plan {

/// What the forecast is made for beside config and layout.
struct ForecastOptions {
  MachineSection machine;
  /// Rows at the busiest rank of an expert group over the mean; 1 where all experts are on one rank.
  double expert_imbalance = 1.2;
  int threads = 1;  ///< per rank, of a CPU
};

/// Number formats of a run on a machine.
struct Formats {
  DType compute = DType::kF32;   ///< weights and activations
  DType gradient = DType::kF32;  ///< gradients, on the wire too
  DType moment = DType::kF32;
  bool master = false;  ///< a copy of the weights in `gradient`, sharded like the moments
};
Formats formats_of(const Config& config, const MachineSection& machine);

/// Rows on their way to experts, of one token-wise rank's micro-batch; expected values under even routing. With parallel.expert_capacity,
/// room travels whole, whatever is in it.
struct ExpertRows {
  double expert = 0;      ///< (token, expert) pairs that arrive at this rank's experts, at the busiest rank
  double room = 0;        ///< rows that the buffers of these experts hold: those, or what parallel.expert_capacity makes room for
  double items = 0;       ///< pairs that leave, own rank included
  double first_sent = 0;  ///< rows of the first hop, own rank included; and those among them that leave the rank
  double first_away = 0;
  double second_sent = 0;  ///< of the second hop, inside a node; 0 with one hop
  double second_away = 0;
  double intra_away = 0;  ///< rows that leave the rank for its node and for other nodes, over both hops
  double inter_away = 0;
};

struct RankShape {
  /// `cp_rank`: later chunks of a sequence see more keys.
  RankShape(const Config& config, const Layout& layout, const ForecastOptions& options, std::int64_t cp_rank = 0);

  const ModelSection& model;
  Formats formats;
  bool on_host = true;             ///< computes in the host's memory
  Kernels kernels = Kernels::kCpu;
  int threads = 1;                 ///< of a CPU rank
  std::int64_t batch = 1;          ///< B: sequences of a micro-batch
  std::int64_t seq = 1;            ///< s: tokens of each that lie here
  std::int64_t whole_seq = 1;      ///< S
  std::int64_t last_position = 1;  ///< one past the last token here, in its sequence
  std::int64_t tokens = 1;         ///< T = B s
  std::int64_t tp = 1, cp = 1, ep = 1, etp = 1;
  std::int64_t token_rows = 1;  ///< T' = T / tp
  std::int64_t vocabulary = 1;  ///< rows of embedding and head here
  bool balance_loss = false;
  bool expert_room = false;  ///< parallel.expert_capacity
  ExpertRows experts;
};

}  // namespace hadal::plan
