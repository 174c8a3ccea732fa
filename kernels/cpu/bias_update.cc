#include "kernels/bias_update.h"

#include <cmath>
#include <numeric>

namespace hadal::kernels {
namespace {

void bias_update(Stream&, const BiasUpdate& args) {
  if (!args.grad_norm_squared.empty() && !std::isfinite(*args.grad_norm_squared.as<double>())) return;
  const auto counts = args.counts.span<std::int64_t>();
  const std::int64_t total = std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
  float* bias = args.bias.as<float>();
  for (std::size_t e = 0; e < counts.size(); ++e) {
    const std::int64_t scaled = counts[e] * std::ssize(counts);
    if (scaled != total) bias[e] += static_cast<float>(scaled < total ? args.speed : -args.speed);
  }
}

const RegisterCpu<BiasUpdate> registered{bias_update};

}  // namespace
}  // namespace hadal::kernels
