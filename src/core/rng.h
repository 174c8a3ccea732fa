// Counter-based random numbers (Philox 4x32-10): a value depends on its key and counter alone, so neither the layout nor
// the order of calls can change it. Every use has its own purpose in the one registry below.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace hadal {

/// The registry of purposes: never renumber, only append (checkpoints and golden runs depend on it).
enum class RandomPurpose : std::uint32_t {
  kInit = 1,           ///< initial values: (seed, name, element)
  kSampleOrder = 2,    ///< order of samples: (seed, epoch, index)
  kBlend = 3,          ///< choice of the data source of a sample
  kFillInMiddle = 4,   ///< whether and where a document is cut
  kGenerate = 5,       ///< sampling of a token: (seed, sequence, position)
  kSynthetic = 6,      ///< benches, tests
  kMicroShuffle = 7,   ///< shuffles inside a shard of the sample order
};

/// Raw Philox 4x32-10 block.
std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key);

/// Stream of random values keyed by (seed, purpose, stream); `at(i)` is a pure function of i.
class Random {
 public:
  Random(std::uint64_t seed, RandomPurpose purpose, std::uint64_t stream = 0);

  std::uint64_t bits(std::uint64_t index) const;
  /// Uniform in [0, 1), 53 bits.
  double uniform(std::uint64_t index) const;
  /// Uniform in [0, bound), bound > 0; bias below 2^-64 * bound.
  std::uint64_t below(std::uint64_t index, std::uint64_t bound) const;
  /// Standard normal (Box-Muller over one Philox block per element).
  double normal(std::uint64_t index) const;

  /// What the blocks are made from, for loops that make many at once (kernels/normal_values.h).
  const std::array<std::uint32_t, 2>& key() const { return key_; }
  const std::array<std::uint32_t, 2>& stream() const { return stream_; }

 private:
  std::array<std::uint32_t, 4> block(std::uint64_t index) const;

  std::array<std::uint32_t, 2> key_;
  std::array<std::uint32_t, 2> stream_;
};

/// 64-bit FNV-1a of a name: the stream id of a named tensor.
std::uint64_t stream_of(std::string_view name);

}  // namespace hadal
