#include "infer/token_sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/dispatch.h"

namespace hadal::infer {
namespace {

// Draws that one position may use: token, acceptance of a draft, token after a rejection.
constexpr std::uint64_t kDrawsPerPosition = 4;

std::vector<double> read_logits(ConstView row) {
  std::vector<double> logits(static_cast<std::size_t>(row.numel()));
  kernels::visit_float(row.dtype, [&]<class T>() { std::ranges::transform(row.span<T>(), logits.begin(), [](T x) { return static_cast<double>(x); }); });
  return logits;
}

}  // namespace

std::vector<double> probabilities(ConstView logits_row, const SamplingOptions& options) {
  std::vector<double> p = read_logits(logits_row);
  const auto best = std::max_element(p.begin(), p.end());
  if (options.temperature == 0) {
    const auto index = best - p.begin();
    std::ranges::fill(p, 0.0);
    p[static_cast<std::size_t>(index)] = 1.0;
    return p;
  }
  const double top = *best;
  for (double& x : p) x = std::exp((x - top) / options.temperature);
  std::vector<std::int32_t> order(p.size());
  std::iota(order.begin(), order.end(), 0);
  const bool cut = options.top_k > 0 || options.top_p < 1.0;
  if (cut) std::ranges::stable_sort(order, [&](std::int32_t a, std::int32_t b) { return p[a] > p[b]; });
  std::size_t kept = p.size();
  if (options.top_k > 0) kept = std::min(kept, static_cast<std::size_t>(options.top_k));
  double sum = 0;
  for (std::size_t i = 0; i < kept; ++i) sum += p[order[i]];
  if (options.top_p < 1.0) {
    double reached = 0;
    std::size_t count = 0;
    while (count < kept && (count == 0 || reached < options.top_p * sum)) reached += p[order[count++]];
    kept = count;
    sum = reached;
  }
  for (std::size_t i = kept; i < order.size(); ++i) p[order[i]] = 0.0;
  for (double& x : p) x /= sum;
  return p;
}

TokenSampler::TokenSampler(const SamplingOptions& options) : options_(options), random_(options.seed, RandomPurpose::kGenerate) {
  if (!(options.temperature >= 0) || !std::isfinite(options.temperature)) throw UserError("--temperature {}: use a number of at least 0", options.temperature);
  if (options.top_k < 0) throw UserError("--top-k {}: use 0 (all) or a number of tokens", options.top_k);
  if (!(options.top_p > 0 && options.top_p <= 1)) throw UserError("--top-p {}: use a number above 0 and up to 1", options.top_p);
}

std::int32_t TokenSampler::sample(std::span<const double> p, std::uint64_t position, std::uint64_t draw) const {
  const double u = uniform(position, draw);
  double sum = 0;
  std::int32_t last = 0;
  for (std::size_t i = 0; i < p.size(); ++i) {
    if (p[i] <= 0) continue;
    sum += p[i];
    last = static_cast<std::int32_t>(i);
    if (u < sum) return last;
  }
  return last;  // rounding left u at or above the sum
}

double TokenSampler::uniform(std::uint64_t position, std::uint64_t draw) const {
  HADAL_CHECK(draw < kDrawsPerPosition, "draw {}", draw);
  return random_.uniform(position * kDrawsPerPosition + draw);
}

}  // namespace hadal::infer
