// AdamW over a model's trainable parameters with ZeRO-1 (spec/parallelism.md 6, precision.md 7): gradients are summed over each
// parameter's replica group, whose ranks share moments and update among them; with global-norm clipping and an optional moving
// average. Norm gains, biases and buffers are exempt from decay (nn::ParameterOptions::decays). With one rank it is plain AdamW.
//
//   optimizer.zero_grad();
//   ...                          // micro-batches; in the last one ready(parameter) may tell which gradients are complete
//   optimizer.finish();
//   optimizer.begin_step(stream, lr);   // any time before
//   optimizer.step(stream, optimizer.grad_norm_squared(stream));
//   optimizer.wait_values();     // before the next look at the parameters
//
// Everything is done on the parameters' device, and the host waits for nothing: a norm that is not finite leaves all as it was, and
// whoever reads the norm later says so (undo_step).
//
// Deterministic: sums are in rank order. Moments, averages and the update are in the accumulation dtype; a bf16 parameter has a master
// copy in it on the ranks that own its elements: that is the value, and what the model computes with is the value rounded. With
// optim.moments bf16 the moments are stored in bfloat16, rounded to nearest even; the update sees them before they are rounded.
#pragma once

#include <memory>
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
  kMaster,    ///< of parameters that are rounded for the model: the value itself
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
  /// Square of the global L2 norm of all gradients, each element counted once; the same on every rank: F64 [1] on the device, valid
  /// until the next call. After finish(). Collective.
  ConstView grad_norm_squared(Stream& stream);
  /// The next step() is one more, with this rate. All that changes between steps is sent to the device here, so that step() and what
  /// comes before it can be recorded once and launched again (core/graph.h).
  void begin_step(Stream& stream, double lr);
  /// One update; gradients are scaled so that their norm is at most clip_norm. They are left as they are.
  void step(Stream& stream, ConstView grad_norm_squared);
  /// The last step() met a norm that is not finite: it does not count.
  void undo_step() { --num_steps_; }
  /// Returns when the parameters hold the values of the last step() on every rank.
  void wait_values();
  /// Sets all parameters to their initial values (nn::Parameter::initialize), masters to these before rounding. Collective.
  void initialize(Stream& stream, std::uint64_t seed);
  void reset_average(Stream& stream);

  /// Updates done.
  std::int64_t num_steps() const { return num_steps_; }
  void set_num_steps(std::int64_t steps) { num_steps_ = steps; }

  // State, for checkpoints and comparisons.
  bool has(StateKind kind) const { return kind != StateKind::kAverage || options_.ema_decay > 0; }
  bool has_master(const nn::Parameter& parameter) const { return parameter.storage() != parameter.accumulation(); }
  DType state_dtype(StateKind kind, const nn::Parameter& parameter) const;
  /// This rank's share, to be read or set; empty when there is no such state (masters: of the parameters that have one). The shares of
  /// all ranks of a group hold every element of its parameters once.
  std::vector<OwnedState> owned_state(StateKind kind);
  /// The whole of one parameter's on rank `root` of its group, into `full` of the parameter's shape and state_dtype on the host
  /// (elsewhere it is not looked at). Collective over the group, in the order of parameters().
  void gather_state(StateKind kind, const nn::Parameter& parameter, int root, View full);

 private:
  /// State of owned segments, by slab.
  struct State {
    std::vector<Tensor> m, v, average, master;
  };
  struct Member {
    std::unique_ptr<comm::Communicator> comm;  ///< where a replica group has parameters of two dtypes
    FlatGroup flat;
    State state;
  };
  struct Where {
    std::size_t member = 0;
    std::size_t index = 0;  ///< in its group
  };

  void add(ReplicaGroup group, std::unique_ptr<comm::Communicator> comm, std::int64_t bucket_bytes);
  const Where& where(const nn::Parameter& parameter) const;
  void initialize_masters(Stream& stream, Member& member, std::uint64_t seed);
  /// What AdamW updates: the master, where there is one.
  View value_of(Member& member, const FlatLayout::Piece& piece);
  View state_of(Member& member, StateKind kind, const FlatLayout::Piece& piece);
  void update(Stream& stream, Member& member, const FlatLayout::Piece& piece, ConstView grad_norm_squared);

  OptimSection options_;
  comm::Communicator& world_;
  std::vector<Member> members_;
  nn::ParameterList parameters_;
  std::unordered_map<const nn::Parameter*, Where> where_;
  Tensor norm_squared_;  ///< F64 [1]
  Tensor rates_;         ///< kernels::adamw_rates of this step
  std::int64_t num_steps_ = 0;
  bool reduced_ = false;
};

}  // namespace hadal::optim
