// Root-mean-square norm (spec/model.md 2, appendix A):
//   rho_t = 1 / sqrt(mean_i x_ti^2 + eps);  y_ti = gain_i * x_ti * rho_t
//   d_x = gain*d_y*rho - x * rho^3/d * sum_i(gain*d_y*x) [+ d_residual];  d_gain_i += sum_t d_y_ti * x_ti * rho_t
// T rows of width d. x, d_x may be the first d columns of wider rows (row strides); everything else is contiguous.
// x, y and their gradients share one dtype; gain, inverse_rms and d_gain have its accumulation_dtype (f32 for bf16).
// Sums over rows run over blocks of rows fixed by T and d.
#pragma once

#include "kernels/op.h"
#include "core/tensor.h"

namespace hadal::kernels {

struct RmsNormForward {
  static constexpr const char* kName = "rms_norm_forward";
  ConstView x;                ///< [T, x_stride], the first d columns count
  std::int64_t x_stride = 0;  ///< 0: d
  ConstView gain;             ///< [d]
  double eps = 1e-6;
  View y;                     ///< [T, d]
  View inverse_rms;           ///< [T]: rho
};

struct RmsNormBackward {
  static constexpr const char* kName = "rms_norm_backward";
  ConstView x;
  std::int64_t x_stride = 0;
  ConstView gain;
  ConstView inverse_rms;
  ConstView d_y;                ///< [T, d]
  ConstView d_residual;         ///< [T, d], added to d_x; empty: none
  View d_x;                     ///< [T, d_x_stride], first d columns overwritten
  std::int64_t d_x_stride = 0;  ///< 0: d
  View d_gain;                  ///< [d], accumulated
};

void run(Stream& stream, const RmsNormForward& args);
void run(Stream& stream, const RmsNormBackward& args);

}  // namespace hadal::kernels
