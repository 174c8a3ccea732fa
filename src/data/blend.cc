#include "data/blend.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"

namespace hadal::data {
namespace {

/// Whole counts that sum to the period: floors, then one more to the largest remainders; at least 1 for a weight above 0.
std::vector<std::uint64_t> counts_of(std::span<const double> weights) {
  double sum = 0.0;
  for (const double weight : weights) {
    if (!(weight >= 0.0) || std::isinf(weight))
      throw UserError("data.sources: a weight is {}; weights are finite and at least 0", weight);
    sum += weight;
  }
  if (!(sum > 0.0)) throw UserError("data.sources: no source has a weight above 0");
  if (weights.size() > 1024) throw UserError("data.sources: {} sources; at most 1024 can be blended", weights.size());

  const auto period = static_cast<double>(Blend::kPeriod);
  std::vector<std::uint64_t> counts(weights.size());
  std::vector<double> remainders(weights.size());
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const double exact = weights[i] / sum * period;
    counts[i] = weights[i] > 0.0 ? std::max<std::uint64_t>(1, static_cast<std::uint64_t>(exact)) : 0;
    remainders[i] = weights[i] > 0.0 ? exact - static_cast<double>(counts[i]) : -period;
  }
  auto total = std::accumulate(counts.begin(), counts.end(), std::uint64_t{0});
  while (total != Blend::kPeriod) {
    const bool more = total < Blend::kPeriod;
    // Too many only because tiny weights were raised to 1: the largest source gives.
    const auto which = static_cast<std::size_t>(more ? std::ranges::max_element(remainders) - remainders.begin()
                                                     : std::ranges::max_element(counts) - counts.begin());
    counts[which] += more ? 1 : std::uint64_t(-1);
    remainders[which] += more ? -1.0 : 1.0;
    total += more ? 1 : std::uint64_t(-1);
  }
  return counts;
}

}  // namespace

Blend::Blend(std::span<const double> weights) : counts_(counts_of(weights)), source_(kPeriod), before_(kPeriod) {
  // deficit = period * (what the source should have had by now - what it had), in whole numbers.
  std::vector<std::int64_t> deficits(counts_.size());
  std::vector<std::uint16_t> taken(counts_.size());
  for (std::uint64_t t = 0; t < kPeriod; ++t) {
    std::size_t best = 0;
    for (std::size_t i = 0; i < counts_.size(); ++i) {
      deficits[i] += static_cast<std::int64_t>(counts_[i]);
      if (deficits[i] > deficits[best]) best = i;
    }
    deficits[best] -= static_cast<std::int64_t>(kPeriod);
    source_[t] = static_cast<std::uint16_t>(best);
    before_[t] = taken[best]++;
  }
}

Blend::Pick Blend::pick(std::uint64_t index) const {
  const std::uint64_t slot = index % kPeriod;
  const std::size_t source = source_[slot];
  return {source, index / kPeriod * counts_[source] + before_[slot]};
}

}  // namespace hadal::data
