// A keyed permutation of 0 .. size-1 without a table: any element at any time, no state.
// A balanced Feistel network over the next power of four, walked along its cycles until it lands below `size`.
#pragma once

#include <array>
#include <cstdint>

#include "core/rng.h"

namespace hadal::data {

class Permutation {
 public:
  /// The round keys are the first values of `keys`. size >= 1.
  Permutation(std::uint64_t size, const Random& keys);

  std::uint64_t size() const { return size_; }
  /// The image of index < size().
  std::uint64_t operator()(std::uint64_t index) const;

 private:
  static constexpr int kRounds = 8;

  std::uint64_t size_;
  int half_bits_ = 1;
  std::array<std::uint64_t, kRounds> keys_;
};

}  // namespace hadal::data
