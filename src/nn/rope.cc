#include "nn/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

#include "core/copy.h"
#include "core/parallel_for.h"
#include "kernels/dispatch.h"
#include "kernels/rope.h"

namespace hadal::nn {
namespace {

constexpr std::int64_t kGrainPositions = 256;

/// m(s, x): how much hotter attention over a stretched context is.
double attention_factor(double factor, double mscale) { return factor > 1.0 ? 0.1 * mscale * std::log(factor) + 1.0 : 1.0; }

}  // namespace

std::vector<double> rope_frequencies(std::int64_t width, const RopeOptions& options) {
  const double w = static_cast<double>(width);
  const YarnOptions& yarn = options.yarn;
  const auto corr = [&](double rotations) {
    return w * std::log(static_cast<double>(yarn.original_length) / (2.0 * std::numbers::pi * rotations)) /
           (2.0 * std::log(options.theta));
  };
  const double low = std::max(std::floor(corr(yarn.beta_fast)), 0.0);
  double high = std::min(std::ceil(corr(yarn.beta_slow)), w - 1.0);
  if (high == low) high += 0.001;
  std::vector<double> frequencies(static_cast<std::size_t>(width / 2));
  for (std::size_t i = 0; i < frequencies.size(); ++i) {
    const double plain = std::pow(options.theta, -2.0 * static_cast<double>(i) / w);
    const double ramp = yarn.factor > 1.0 ? std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0) : 0.0;
    frequencies[i] = plain / yarn.factor * ramp + plain * (1.0 - ramp);
  }
  return frequencies;
}

double softmax_scale(std::int64_t qk_width, const RopeOptions& options) {
  const double factor = attention_factor(options.yarn.factor, options.yarn.mscale_all_dim);
  return factor * factor / std::sqrt(static_cast<double>(qk_width));
}

RopeTable::RopeTable(std::int64_t max_positions, std::int64_t width, const RopeOptions& options, Storage storage) {
  HADAL_CHECK(max_positions > 0 && width > 0 && width % 2 == 0, "rotation table of {} positions, width {}", max_positions, width);
  const std::vector<double> frequencies = rope_frequencies(width, options);
  const double factor = attention_factor(options.yarn.factor, options.yarn.mscale) /
                        attention_factor(options.yarn.factor, options.yarn.mscale_all_dim);
  const DType dtype = accumulation_dtype(storage.dtype);
  Tensor host_cosines = Tensor::empty({max_positions, width / 2}, dtype), host_sines = Tensor::empty({max_positions, width / 2}, dtype);
  kernels::visit_float(dtype, [&]<class T>() {
    T* cosines = host_cosines.as<T>();
    T* sines = host_sines.as<T>();
    const auto pairs = static_cast<std::int64_t>(frequencies.size());
    parallel_ranges(max_positions, kGrainPositions, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t position = begin; position < end; ++position) {
        for (std::int64_t i = 0; i < pairs; ++i) {
          const double angle = static_cast<double>(position) * frequencies[static_cast<std::size_t>(i)];
          cosines[position * pairs + i] = static_cast<T>(factor * std::cos(angle));
          sines[position * pairs + i] = static_cast<T>(factor * std::sin(angle));
        }
      }
    });
  });
  Stream stream = stream_of(storage.device);
  cosines_ = moved_to(stream, std::move(host_cosines), storage.device);
  sines_ = moved_to(stream, std::move(host_sines), storage.device);
}

void RopeTable::apply(Stream& stream, std::int64_t batch, kernels::ConstHeads x, kernels::Heads y, RopeMode mode,
                      std::int64_t start, std::int64_t stride) const {
  kernels::run(stream, kernels::Rope{.batch = batch,
                                     .x = x,
                                     .y = y,
                                     .cosines = cosines_,
                                     .sines = sines_,
                                     .position_start = start,
                                     .position_stride = stride,
                                     .transpose = mode != RopeMode::kForward,
                                     .accumulate = mode == RopeMode::kAddTranspose});
}

}  // namespace hadal::nn
