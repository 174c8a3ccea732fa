#include "optim/flat_layout.h"

#include <algorithm>

#include "core/error.h"

namespace hadal::optim {
namespace {

/// In a slab, unless it has more ranks: a checkpoint lists a tensor's pieces one by one.
constexpr std::int64_t kMostSegments = 1024;

std::int64_t round_up(std::int64_t value, std::int64_t unit) { return (value + unit - 1) / unit * unit; }

}  // namespace

FlatLayout::FlatLayout(std::span<const std::int64_t> parameter_numels, int ranks, std::int64_t bucket_numel) : ranks_(ranks) {
  HADAL_CHECK(ranks >= 1 && bucket_numel >= 1, "buckets of {} elements over {} ranks", bucket_numel, ranks);
  std::int64_t filled = 0;
  for (const std::int64_t numel : parameter_numels) {
    HADAL_CHECK(numel > 0, "parameter {} is empty", places_.size());
    places_.push_back({slabs_.size(), filled, numel});
    filled = round_up(filled + numel, kAlignment);
    if (filled < bucket_numel) continue;
    close_slab(filled, bucket_numel);
    filled = 0;
  }
  if (filled > 0) close_slab(filled, bucket_numel);
}

void FlatLayout::close_slab(std::int64_t numel, std::int64_t bucket_numel) {
  const std::int64_t most = ranks_ == 1 ? 1 : std::max<std::int64_t>(1, kMostSegments / ranks_);
  const std::int64_t count = std::clamp<std::int64_t>(numel / bucket_numel, 1, most);
  const std::int64_t size = round_up((numel + count - 1) / count, ranks_ * kAlignment);
  // Rounding may have left the last ones without elements.
  const std::int64_t needed = (numel + size - 1) / size;
  slabs_.push_back({size, needed, bucket_slabs_.size()});
  bucket_slabs_.insert(bucket_slabs_.end(), static_cast<std::size_t>(needed), slabs_.size() - 1);
}

std::vector<FlatLayout::Piece> FlatLayout::pieces(std::size_t parameter) const {
  const Place& place = places_[parameter];
  const Slab& slab = slabs_[place.slab];
  const std::int64_t segment_numel = slab.bucket_numel / ranks_;
  std::vector<Piece> pieces;
  for (std::int64_t at = place.begin; at < place.begin + place.numel;) {
    const std::int64_t segment = at / segment_numel;  // over all buckets of the slab
    const std::int64_t end = std::min((segment + 1) * segment_numel, place.begin + place.numel);
    const std::int64_t bucket = segment / ranks_;
    pieces.push_back({.parameter = parameter,
                      .slab = place.slab,
                      .bucket = slab.first_bucket + static_cast<std::size_t>(bucket),
                      .owner = static_cast<int>(segment % ranks_),
                      .numel = end - at,
                      .parameter_begin = at - place.begin,
                      .slab_begin = at,
                      .owned_begin = bucket * segment_numel + at - segment * segment_numel});
    at = end;
  }
  return pieces;
}

}  // namespace hadal::optim
