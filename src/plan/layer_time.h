// Seconds of one micro-batch on one layer of a rank: products at a share of the peak or of the memory bandwidth, whichever takes
// longer, passes over tensors at the memory's, transfers at the links'. The shares are the machine file's.
#pragma once

#include "plan/rank_shape.h"
#include "plan/wire_bytes.h"

namespace hadal::plan {

/// Computation and transfers of one pass.
struct PassTime {
  double compute = 0;
  double transfer = 0;  ///< all of it
  double exposed = 0;   ///< of it, what nothing of the same micro-batch hides

  double alone() const { return compute + exposed; }
  PassTime& operator+=(const PassTime& other);
};

struct LayerTime {
  PassTime forward, input, weight;

  LayerTime& operator+=(const LayerTime& other);
};

class LayerClock {
 public:
  /// Both are kept by reference.
  LayerClock(const RankShape& shape, const MachineSection& machine) : s_(shape), m_(machine) {}

  LayerTime block(bool sparse, bool moe) const;
  LayerTime embedding() const;
  LayerTime head() const;
  /// What an MTP module has beside its block, embedding and head.
  LayerTime mtp_projection() const;

  /// Seconds in which `bytes` leave this rank for members of a group of `ranks` consecutive world ranks, in `messages` messages.
  double send(double bytes, std::int64_t ranks, double messages) const;
  /// Seconds in which `bytes` of memory are read or written.
  double pass(double bytes) const;
  /// Operations per second at best.
  double peak() const;

 private:
  enum class Kind { kDense, kGrouped };
  /// The three products of rows [m, k] with weights [n, k] of `count` experts (1: dense).
  LayerTime products(Kind kind, double m, double n, double k, double count = 1) const;
  LayerTime scores(bool sparse) const;
  LayerTime attention(bool sparse) const;
  LayerTime feed_forward(double width) const;
  LayerTime moe() const;
  LayerTime elements(double forward, double backward) const;
  PassTime traffic(const LayerBytes& bytes) const;
  double element() const;

  const RankShape& s_;
  const MachineSection& m_;
};

}  // namespace hadal::plan
