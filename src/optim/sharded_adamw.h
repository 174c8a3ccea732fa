// AdamW over a model's trainable parameters with ZeRO-1 (spec/parallelism.md 6, precision.md 7): gradients are summed over each
// parameter's replica group, whose ranks share moments and update among them; with global-norm clipping and an optional moving
// average. Norm gains, biases and buffers are exempt from decay (nn::ParameterOptions::decays). With one rank it is plain AdamW.
//
//   optimizer.zero_grad();
//   ...                          // micro-batches; in the last one ready(parameter) may tell which gradients are complete
//   optimizer.finish();
//   const double norm = optimizer.grad_norm(stream);
//   optimizer.step(stream, lr, norm);
//   optimizer.wait_values();     // before the next look at the parameters
//
// Deterministic: sums are in rank order. With optim.moments bf16 the moments are stored in bfloat16, rounded to nearest even; the
// update is computed in the parameters' dtype and sees them before they are rounded.
#pragma once

#include <unordered_map>
#include <vector>

#include "config/config.h"
#include "core/stream.h"
#include "optim/flat_group.h"

namespace hadal::optim {

/// What an optimizer keeps beside each parameter, of the parameter's shape.
enum class StateKind {
  kFirstMoment,
  kSecondMoment,
  kAverage,   ///< with ema_decay alone
  kGradient,  ///< summed over the group, after finish()
};

/// Consecutive elements of a parameter's state.
struct OwnedState {
  nn::Parameter* parameter = nullptr;
  std::int64_t begin = 0;  ///< first element, in the parameter
  View elements;
};

class ShardedAdamW {
 public:
  /// spec/cpu.md 3: 1 to 8 MB.
  static constexpr std::int64_t kBucketBytes = std::int64_t{4} << 20;

  /// `groups`: this rank's part in each; parameters that are not trainable are left out. There is one order of all groups of the
  /// world that every rank's list follows. `world`: all ranks. Parameters move into memory of this object, which outlives every
  /// use of them. State is zero; the average starts at the parameters' values when reset_average is called.
  ShardedAdamW(const OptimSection& options, std::vector<ReplicaGroup> groups, comm::Communicator& world,
               std::int64_t bucket_bytes = kBucketBytes);

  /// Trainable parameters, group by group.
  const nn::ParameterList& parameters() const { return parameters_; }

  void zero_grad();
  /// This rank has added its last share to the gradient of this step. At most once per parameter and step, in any order.
  void ready(const nn::Parameter& parameter);
  /// Ends the reduction. Collective; no gradient changes afterwards until zero_grad.
  void finish();
  /// Global L2 norm of all gradients, each element counted once; the same on every rank. After finish(). Collective.
  double grad_norm(Stream& stream);
  /// One update with the given rate; gradients are scaled so that their norm is at most clip_norm. They are left as they are.
  void step(Stream& stream, double lr, double grad_norm);
  /// Returns when the parameters hold the values of the last step() on every rank.
  void wait_values();
  void reset_average();

  /// Updates done.
  std::int64_t num_steps() const { return num_steps_; }
  void set_num_steps(std::int64_t steps) { num_steps_ = steps; }

  // State, for checkpoints and comparisons.
  bool has(StateKind kind) const { return kind != StateKind::kAverage || options_.ema_decay > 0; }
  DType state_dtype(StateKind kind, const nn::Parameter& parameter) const;
  /// This rank's share, to be read or set; empty when there is no such state. The shares of all ranks of a group hold every
  /// element of its parameters once.
  std::vector<OwnedState> owned_state(StateKind kind);
  /// The whole of one parameter's on rank `root` of its group, into `full` of the parameter's shape and state_dtype (elsewhere it
  /// is not looked at). Collective over the group, in the order of parameters().
  void gather_state(StateKind kind, const nn::Parameter& parameter, int root, View full);

 private:
  /// State of owned segments, by slab.
  struct State {
    std::vector<Tensor> m, v, average;
  };
  struct Member {
    FlatGroup flat;
    State state;
  };
  struct Where {
    std::size_t member = 0;
    std::size_t index = 0;  ///< in its group
  };

  const Where& where(const nn::Parameter& parameter) const;
  View state_of(Member& member, StateKind kind, const FlatLayout::Piece& piece);
  void update(Stream& stream, Member& member, const FlatLayout::Piece& piece, double lr, double grad_scale);

  OptimSection options_;
  comm::Communicator& world_;
  std::vector<Member> members_;
  nn::ParameterList parameters_;
  std::unordered_map<const nn::Parameter*, Where> where_;
  std::int64_t num_steps_ = 0;
  bool reduced_ = false;
};

}  // namespace hadal::optim
