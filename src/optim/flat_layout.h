// Where the parameters of a replica group lie in flat memory, and which of its ranks owns what (ZeRO-1, spec/parallelism.md 6).
// Pure arithmetic over element counts: every rank of the group comes to the same answer.
//
//   slab 0:   | p0      . | p1  . | p2               pad |     slab 1: ...      . gaps up to a multiple of kAlignment
//   buckets:  | bucket 0          | bucket 1             |     of equal size in a slab, what one collective moves
//   segments: | rank 0  | rank 1  | rank 0    | rank 1   |     a bucket's equal parts, by owner
//
// A segment may cut a parameter anywhere. Alone, a rank owns each slab as one segment.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace hadal::optim {

class FlatLayout {
 public:
  /// Parameters begin at multiples of so many elements: 64 bytes or more.
  static constexpr std::int64_t kAlignment = 16;

  /// One allocation: consecutive parameters, closed as soon as it is at least a bucket.
  struct Slab {
    std::int64_t bucket_numel = 0;  ///< a multiple of ranks * kAlignment
    std::int64_t num_buckets = 0;
    std::size_t first_bucket = 0;  ///< index over all slabs
    std::int64_t numel() const { return bucket_numel * num_buckets; }
  };
  struct Place {
    std::size_t slab = 0;
    std::int64_t begin = 0;  ///< in the slab
    std::int64_t numel = 0;
  };
  /// Consecutive elements of one parameter in one segment.
  struct Piece {
    std::size_t parameter = 0;
    std::size_t slab = 0;
    std::size_t bucket = 0;  ///< index over all slabs
    int owner = 0;
    std::int64_t numel = 0;
    std::int64_t parameter_begin = 0;  ///< in the parameter
    std::int64_t slab_begin = 0;       ///< in the slab
    std::int64_t owned_begin = 0;      ///< in the owner's packed segments of this slab
  };

  /// Buckets have `bucket_numel` elements up to twice as many (padding aside), less in the last slab, more where a parameter is
  /// so large that it would be cut into thousands of pieces.
  FlatLayout(std::span<const std::int64_t> parameter_numels, int ranks, std::int64_t bucket_numel);

  int ranks() const { return ranks_; }
  const std::vector<Slab>& slabs() const { return slabs_; }
  const std::vector<Place>& places() const { return places_; }
  std::size_t num_buckets() const { return bucket_slabs_.size(); }
  std::size_t slab_of(std::size_t bucket) const { return bucket_slabs_[bucket]; }
  /// Pieces of one parameter, in the order of its elements.
  std::vector<Piece> pieces(std::size_t parameter) const;
  /// Elements of a slab that each rank owns.
  std::int64_t owned_numel(std::size_t slab) const { return slabs_[slab].numel() / ranks_; }

 private:
  void close_slab(std::int64_t numel, std::int64_t bucket_numel);

  int ranks_;
  std::vector<Slab> slabs_;
  std::vector<Place> places_;              ///< by parameter
  std::vector<std::size_t> bucket_slabs_;  ///< by bucket
};

}  // namespace hadal::optim
