// Whole logical tensors, put together from the slices that ranks hold and cut into them: "a layout equals one rank", tensor by
// tensor (design.md 4, promise 4).
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <string>

#include "nn/parameter.h"

namespace hadal::test {

/// f64, by logical name.
using LogicalTensors = std::map<std::string, Tensor>;

/// Values of the parameters of a rank that holds everything.
LogicalTensors values_of(const nn::ParameterList& parameters);
/// Gives each parameter its slices of `whole`.
void set_values(const nn::ParameterList& parameters, const LogicalTensors& whole);
/// sum += every slice of every gradient, at its place; what no rank holds stays zero. Over all ranks of a layout this gives the
/// sum over those that hold the same slice, beside the slices of the others.
void add_gradients(LogicalTensors& sum, const nn::ParameterList& parameters);
/// sum += other, by name.
void add_tensors(LogicalTensors& sum, const LogicalTensors& other);

/// Same names and shapes, and per tensor max |a - b| <= tolerance * max(max |b|, 1e-12 of the largest of all b). Failures name
/// the tensor.
::testing::AssertionResult same_tensors(const LogicalTensors& a, const LogicalTensors& b, double tolerance = 1e-10);

}  // namespace hadal::test
