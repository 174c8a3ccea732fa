// Analytic gradients against central differences in f64 (design.md 4, promise 1).
//
// The loss is a sum of terms; its derivative along one element is the five-point difference
//   (8 (L(+h) - L(-h)) - (L(+2h) - L(-2h))) / (12 h)
// taken term by term, so that terms which do not change cancel exactly. A tensor passes when
//   max |analytic - numeric| - noise <= tolerance * max(max |numeric|, 1e-12 of the largest gradient of all tensors),
// noise being what rounding of the terms themselves puts into the difference: it only matters for gradients that are (almost)
// zero.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "nn/layer.h"

namespace hadal::test {

struct GradientCheckOptions {
  double step = 1e-3;
  double tolerance = 1e-7;
  /// At most this many elements of a tensor are perturbed, evenly spread (0: all).
  std::int64_t max_elements = 0;
  std::uint64_t seed = 7;
};

/// One tensor the loss depends on, f64, with its analytic gradient of the same size.
struct GradientPair {
  std::string name;
  View value;
  ConstView gradient;
};

/// The terms whose sum is the loss, at the tensors' present values.
using LossTerms = std::function<std::vector<double>()>;

/// Compares every pair with differences of `terms`; the values are restored. Failures name tensor, element and both numbers.
::testing::AssertionResult gradients_agree(const std::vector<GradientPair>& pairs, const LossTerms& terms,
                                           const GradientCheckOptions& options = {});

/// A whole layer: loss = sum of y * (fixed random weights); checks d_x and every trainable parameter, and that backward_weight
/// accumulates (a second pass doubles every gradient). x [T, d_in] f64 is perturbed in place and restored.
/// Discrete choices must be held by the caller (Attention::hold_selection).
::testing::AssertionResult layer_gradients_agree(nn::Layer& layer, nn::Context& ctx, View x,
                                                 const GradientCheckOptions& options = {});

/// Overwrites a f64 or f32 tensor with Normal(mean, std) values that depend on (seed, element) alone.
void fill_normal(View values, std::uint64_t seed, double std = 1.0, double mean = 0.0);
/// New tensor of such values.
Tensor normal_tensor(Shape shape, std::uint64_t seed, double std = 1.0, DType dtype = DType::kF64);
/// Gives every parameter generic values, far from the symmetric initial ones: matrices Normal(0, std), gains 1 + Normal(0, std).
void randomize(const nn::ParameterList& parameters, std::uint64_t seed, double std);

/// max |a - b| / max |b| over two tensors of one shape and dtype (f32 or f64); |a - b| alone when b is zero.
double relative_difference(ConstView a, ConstView b);

}  // namespace hadal::test
