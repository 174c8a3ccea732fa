#include "data/permutation.h"

#include "core/error.h"

namespace hadal::data {
namespace {

/// A bijective mix of 64 bits (multiply and fold, twice): every input bit reaches every output bit.
std::uint64_t mix(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

}  // namespace

Permutation::Permutation(std::uint64_t size, const Random& keys) : size_(size) {
  HADAL_CHECK(size >= 1 && size <= (std::uint64_t{1} << 62), "permutation of {} elements", size);
  while ((std::uint64_t{1} << (2 * half_bits_)) < size) ++half_bits_;
  for (int round = 0; round < kRounds; ++round)
    keys_[static_cast<std::size_t>(round)] = keys.bits(static_cast<std::uint64_t>(round));
}

std::uint64_t Permutation::operator()(std::uint64_t index) const {
  const std::uint64_t mask = (std::uint64_t{1} << half_bits_) - 1;
  do {
    std::uint64_t left = index >> half_bits_;
    std::uint64_t right = index & mask;
    for (const std::uint64_t key : keys_) {
      const std::uint64_t next = left ^ (mix(right + key) & mask);
      left = right;
      right = next;
    }
    index = left << half_bits_ | right;
  } while (index >= size_);
  return index;
}

}  // namespace hadal::data
