#include "schedule/placement.h"

#include "core/error.h"

namespace hadal::schedule {

Placement::Placement(Arrangement arrangement, int ranks, int chunks, int micro_batches)
    : arrangement_(arrangement),
      ranks_(ranks),
      slots_(arrangement == Arrangement::kSequential ? chunks : 2),
      micro_batches_(micro_batches) {
  HADAL_CHECK(ranks >= 1 && chunks >= 1 && micro_batches >= 1, "{} ranks, {} chunks, {} micro-batches", ranks, chunks,
              micro_batches);
}

int Placement::stage_of(int rank, int slot) const {
  HADAL_CHECK(rank >= 0 && rank < ranks_ && slot >= 0 && slot < slots_, "slot {} of {}, rank {} of {}", slot, slots_, rank,
              ranks_);
  if (slot == 0) return rank;
  switch (arrangement_) {
    case Arrangement::kSequential:
      return slot * ranks_ + rank;
    case Arrangement::kV:
      return 2 * ranks_ - 1 - rank;
    case Arrangement::kBidirectional:
      return ranks_ - 1 - rank;
  }
  return rank;
}

Location Placement::locate(int stage, int micro_batch) const {
  HADAL_CHECK(stage >= 0 && stage < num_stages(), "stage {} of {}", stage, num_stages());
  switch (arrangement_) {
    case Arrangement::kSequential:
      return {stage % ranks_, stage / ranks_};
    case Arrangement::kV:
      return stage < ranks_ ? Location{stage, 0} : Location{2 * ranks_ - 1 - stage, 1};
    case Arrangement::kBidirectional:
      return direction(micro_batch) == 0 ? Location{stage, 0} : Location{ranks_ - 1 - stage, 1};
  }
  return {};
}

std::vector<Location> Placement::copies(int stage) const {
  if (arrangement_ != Arrangement::kBidirectional) return {locate(stage, 0)};
  HADAL_CHECK(stage >= 0 && stage < num_stages(), "stage {} of {}", stage, num_stages());
  return {Location{stage, 0}, Location{ranks_ - 1 - stage, 1}};
}

int Placement::direction(int micro_batch) const {
  HADAL_CHECK(micro_batch >= 0 && micro_batch < micro_batches_, "micro-batch {} of {}", micro_batch, micro_batches_);
  return arrangement_ == Arrangement::kBidirectional && micro_batch >= end_micro_batch(0) ? 1 : 0;
}

int Placement::first_micro_batch(int slot) const {
  return arrangement_ == Arrangement::kBidirectional && slot == 1 ? end_micro_batch(0) : 0;
}

int Placement::end_micro_batch(int slot) const {
  return arrangement_ == Arrangement::kBidirectional && slot == 0 ? (micro_batches_ + 1) / 2 : micro_batches_;
}

}  // namespace hadal::schedule
