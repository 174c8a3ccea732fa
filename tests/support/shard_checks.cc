#include "tests/support/shard_checks.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "kernels/dispatch.h"

namespace hadal::test {
namespace {

/// The logical tensor of `part`, made of zeros at first use.
Tensor& whole_tensor(LogicalTensors& tensors, const nn::LogicalPart& part) {
  Tensor& whole = tensors[part.name];
  if (!whole.defined()) whole = Tensor::zeros(part.shape, DType::kF64);
  HADAL_CHECK(whole.shape() == part.shape, "{}: {} and {}", part.name, whole.shape().str(), part.shape.str());
  return whole;
}

/// body(element of the whole tensor, element of the parameter) for each element of the slice.
template <class Body>
void for_each_element(const nn::LogicalPart& part, const Body& body) {
  std::int64_t count = 1;
  for (const std::int64_t extent : part.extent) count *= extent;
  for (std::int64_t i = 0; i < count; ++i) {
    std::int64_t rest = i, index = 0, stride = 1;
    for (int dim = part.shape.rank() - 1; dim >= 0; --dim) {
      const auto d = static_cast<std::size_t>(dim);
      index += (part.begin[d] + rest % part.extent[d]) * stride;
      rest /= part.extent[d];
      stride *= part.shape[dim];
    }
    body(index, part.offset + i);
  }
}

void add_slices(LogicalTensors& sum, const nn::Parameter& parameter, ConstView values) {
  kernels::visit_float(values.dtype, [&]<class T>() {
    for (const nn::LogicalPart& part : parameter.parts()) {
      double* const whole = whole_tensor(sum, part).as<double>();
      for_each_element(part, [&](std::int64_t to, std::int64_t from) { whole[to] += static_cast<double>(values.as<T>()[from]); });
    }
  });
}

double largest(ConstView values) {
  double result = 0;
  for (const double value : values.span<double>()) result = std::max(result, std::abs(value));
  return result;
}

double difference(ConstView a, ConstView b) {
  double result = 0;
  for (std::int64_t i = 0; i < b.numel(); ++i) {
    const double d = std::abs(a.as<double>()[i] - b.as<double>()[i]);
    result = std::isfinite(d) ? std::max(result, d) : std::numeric_limits<double>::infinity();
  }
  return result;
}

}  // namespace

LogicalTensors values_of(const nn::ParameterList& parameters) {
  LogicalTensors values;
  for (const nn::Parameter* parameter : parameters) add_slices(values, *parameter, parameter->value());
  return values;
}

void set_values(const nn::ParameterList& parameters, const LogicalTensors& whole) {
  for (nn::Parameter* parameter : parameters) {
    kernels::visit_float(parameter->dtype(), [&]<class T>() {
      T* const to = parameter->value().as<T>();
      for (const nn::LogicalPart& part : parameter->parts()) {
        const Tensor& from = whole.at(part.name);
        HADAL_CHECK(from.shape() == part.shape, "{}: {} and {}", part.name, from.shape().str(), part.shape.str());
        for_each_element(part, [&](std::int64_t i, std::int64_t own) { to[own] = static_cast<T>(from.as<double>()[i]); });
      }
    });
  }
}

void add_gradients(LogicalTensors& sum, const nn::ParameterList& parameters) {
  for (nn::Parameter* parameter : parameters) {
    if (parameter->options().trainable) add_slices(sum, *parameter, parameter->grad());
  }
}

void add_tensors(LogicalTensors& sum, const LogicalTensors& other) {
  for (const auto& entry : other) {
    Tensor& to = sum[entry.first];
    if (!to.defined()) to = Tensor::zeros(entry.second.shape(), DType::kF64);
    HADAL_CHECK(to.shape() == entry.second.shape(), "{}: shapes differ", entry.first);
    for (std::int64_t i = 0; i < to.numel(); ++i) to.as<double>()[i] += entry.second.as<double>()[i];
  }
}

::testing::AssertionResult same_tensors(const LogicalTensors& a, const LogicalTensors& b, double tolerance) {
  double scale = 0;
  for (const auto& entry : b) scale = std::max(scale, largest(entry.second));
  if (b.empty() || scale == 0) return ::testing::AssertionFailure() << "nothing to compare with";
  std::string failures;
  for (const auto& entry : a) {
    if (!b.contains(entry.first)) failures += fmt::format("\n  {} is unknown", entry.first);
  }
  for (const auto& entry : b) {
    const auto found = a.find(entry.first);
    if (found == a.end() || found->second.shape() != entry.second.shape()) {
      failures += fmt::format("\n  {} is missing or of another shape", entry.first);
      continue;
    }
    const double relative = difference(found->second, entry.second) / std::max(largest(entry.second), 1e-12 * scale);
    if (!(relative <= tolerance)) failures += fmt::format("\n  {}: relative {:.3g}", entry.first, relative);
  }
  return failures.empty() ? ::testing::AssertionSuccess() : ::testing::AssertionFailure() << failures;
}

}  // namespace hadal::test
