// Which source a sample comes from: a pure function of the sample's index and the weights.
// The weights are rounded to counts over a period of 65,536 samples; within a period each sample goes to the source that is
// furthest behind its share (ties to the lower index). So every stretch holds the right mix, and a period holds it exactly.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace hadal::data {

class Blend {
 public:
  static constexpr std::uint64_t kPeriod = 65536;

  /// Weights >= 0, relative to their sum; a source of weight 0 is never taken, every other one at least once a period.
  /// UserError when no weight is above 0 or there are more sources than a period has samples.
  explicit Blend(std::span<const double> weights);

  struct Pick {
    std::size_t source = 0;
    std::uint64_t sample = 0;  ///< number of earlier samples of this source
  };
  Pick pick(std::uint64_t index) const;
  /// Samples of a source in one period.
  std::uint64_t count(std::size_t source) const { return counts_[source]; }

 private:
  std::vector<std::uint64_t> counts_;
  std::vector<std::uint16_t> source_;  ///< [kPeriod]
  std::vector<std::uint16_t> before_;  ///< [kPeriod] earlier samples of the same source in the period
};

}  // namespace hadal::data
