// Which stage lives on which pipeline rank, in which slot.
//
//   sequential     one or more chunks a rank: slot c of rank r is stage c P + r (spec/parallelism.md 5.1, 5.2)
//   v              two chunks: slot 0 is stage r, slot 1 is stage 2P - 1 - r, so that first and last stage meet on rank 0 (5.5)
//   bidirectional  two copies of the model: slot 0 of rank r is stage r, slot 1 is stage P - 1 - r of the other copy. The first
//                  half of the micro-batches runs through slots 0 (direction 0), the second half through slots 1 (5.6)
#pragma once

#include <cstdint>
#include <vector>

namespace hadal::schedule {

enum class Arrangement : std::uint8_t { kSequential, kV, kBidirectional };

struct Location {
  int rank = 0;
  int slot = 0;

  bool operator==(const Location&) const = default;
};

class Placement {
 public:
  /// `chunks` per rank; kV and kBidirectional have two whatever it says.
  Placement(Arrangement arrangement, int ranks, int chunks, int micro_batches);

  Arrangement arrangement() const { return arrangement_; }
  int num_ranks() const { return ranks_; }
  int num_slots() const { return slots_; }
  int num_stages() const { return arrangement_ == Arrangement::kBidirectional ? ranks_ : ranks_ * slots_; }
  int num_micro_batches() const { return micro_batches_; }
  bool is_last(int stage) const { return stage + 1 == num_stages(); }

  int stage_of(int rank, int slot) const;
  /// Where `micro_batch` meets `stage`: the copy matters only to kBidirectional.
  Location locate(int stage, int micro_batch) const;
  /// Every place that holds the parameters of `stage`; by slot.
  std::vector<Location> copies(int stage) const;

  /// 1 for the micro-batches that run through the second copy of kBidirectional, else 0.
  int direction(int micro_batch) const;
  /// Micro-batches [begin, end) that run through `slot`.
  int first_micro_batch(int slot) const;
  int end_micro_batch(int slot) const;

  bool operator==(const Placement&) const = default;

 private:
  Arrangement arrangement_;
  int ranks_;
  int slots_;
  int micro_batches_;
};

}  // namespace hadal::schedule
