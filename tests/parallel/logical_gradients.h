// Gradients of a layer that lies over several ranks, put together as logical tensors: slices at their place, what several ranks
// hold summed (the reduction of a training step).
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "nn/parameter.h"

namespace hadal::test {

class LogicalGradients {
 public:
  /// Adds the f64 gradients of one rank's parameters.
  void add(const nn::ParameterList& parameters) {
    for (nn::Parameter* parameter : parameters) {
      if (!parameter->options().trainable) continue;
      for (const nn::LogicalPart& part : parameter->parts()) add_part(part, parameter->grad().as<double>() + part.offset);
    }
  }

  const std::map<std::string, std::vector<double>>& tensors() const { return tensors_; }

 private:
  void add_part(const nn::LogicalPart& part, const double* values) {
    std::vector<double>& whole = tensors_[part.name];
    whole.resize(static_cast<std::size_t>(part.shape.numel()));
    ASSERT_EQ(part.shape.rank(), 2);
    for (std::int64_t i = 0; i < part.extent[0]; ++i) {
      for (std::int64_t j = 0; j < part.extent[1]; ++j) {
        whole[static_cast<std::size_t>((part.begin[0] + i) * part.shape[1] + part.begin[1] + j)] +=
            values[i * part.extent[1] + j];
      }
    }
  }

  std::map<std::string, std::vector<double>> tensors_;
};

inline double largest(const std::vector<double>& values) {
  double most = 0;
  for (const double value : values) most = std::max(most, std::abs(value));
  return most;
}

/// max |a - b| <= 1e-10 max(max |b|, floor).
inline void expect_close(const std::vector<double>& a, const std::vector<double>& b, double floor, const std::string& what) {
  ASSERT_EQ(a.size(), b.size()) << what;
  double error = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double difference = std::abs(a[i] - b[i]);
    error = std::isfinite(difference) ? std::max(error, difference) : INFINITY;
  }
  EXPECT_LE(error, 1e-10 * std::max(largest(b), floor)) << what;
}

/// Every tensor of both, with 1e-12 of the largest gradient as the floor (design.md 4).
inline void expect_close(const LogicalGradients& a, const LogicalGradients& b) {
  double most = 0;
  for (const auto& [name, values] : b.tensors()) most = std::max(most, largest(values));
  ASSERT_GT(most, 0);
  ASSERT_EQ(a.tensors().size(), b.tensors().size());
  for (const auto& [name, values] : b.tensors()) {
    ASSERT_TRUE(a.tensors().contains(name)) << name;
    expect_close(a.tensors().at(name), values, 1e-12 * most, name);
  }
}

}  // namespace hadal::test
