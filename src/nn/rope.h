// Rotation angles of rotary position embedding, with YaRN (spec/model.md 4):
//   f_i  = theta^(-2i/w), i = 0 .. w/2-1;   ramp_i = clamp((i - low) / (high - low), 0, 1)
//   f_i' = f_i/s * ramp_i + f_i * (1 - ramp_i);   m(s, x) = 0.1 x ln s + 1 for s > 1, else 1
//   corr(n) = w ln(original_length / (2 pi n)) / (2 ln theta);   low = max(floor(corr(beta_fast)), 0),  high =
//   min(ceil(corr(beta_slow)), w-1) cos and sin carry the factor m(s, mscale) / m(s, mscale_all_dim)
#pragma once

#include <cstdint>
#include <vector>

#include "core/stream.h"
#include "core/tensor.h"
#include "kernels/heads.h"
#include "nn/rope_options.h"

namespace hadal::nn {

/// Frequencies f_i' of the w/2 pairs, in radians per position.
std::vector<double> rope_frequencies(std::int64_t width, const RopeOptions& options);

/// Factor on the scores of attention over keys of `qk_width`: qk_width^-0.5 * m(s, mscale_all_dim)^2.
double softmax_scale(std::int64_t qk_width, const RopeOptions& options);

enum class RopeMode {
  kForward,
  kTranspose,     ///< gradient
  kAddTranspose,  ///< gradient, added to what y holds
};

/// Cosines and sines of every position, computed in f64 and stored in the accumulation dtype. Immutable: one serves all layers.
class RopeTable {
 public:
  RopeTable(std::int64_t max_positions, std::int64_t width, const RopeOptions& options, Storage storage);

  std::int64_t max_positions() const { return cosines_.shape()[0]; }
  std::int64_t width() const { return cosines_.shape()[1] * 2; }
  ConstView cosines() const { return cosines_; }  ///< [max_positions, width/2]
  ConstView sines() const { return sines_; }      ///< [max_positions, width/2]

  /// Turns row t of each of `batch` sequences by position start + stride * t. x, y [B*S, G, width]; y may be x.
  void apply(Stream& stream, std::int64_t batch, kernels::ConstHeads x, kernels::Heads y, RopeMode mode = RopeMode::kForward,
             std::int64_t start = 0, std::int64_t stride = 1) const;

 private:
  Tensor cosines_;
  Tensor sines_;
};

}  // namespace hadal::nn
