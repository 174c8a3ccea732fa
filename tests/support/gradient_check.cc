#include "tests/support/gradient_check.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/rng.h"
#include "kernels/dispatch.h"

namespace hadal::test {
namespace {

constexpr double kEpsilon = std::numeric_limits<double>::epsilon();

struct Difference {
  double value = 0;
  double noise = 0;
};

/// Five-point difference along one element, which is left as it was.
Difference differentiate(double& element, const LossTerms& terms, double step) {
  const double middle = element;
  // What the element really moves by: middle + h is rounded.
  const auto at = [&](double offset) {
    volatile double moved = middle + offset;
    element = moved;
    return terms();
  };
  const std::vector<double> plus = at(step), minus = at(-step), plus2 = at(2 * step), minus2 = at(-2 * step);
  element = middle;
  Difference result;
  double size = 0;
  for (std::size_t i = 0; i < plus.size(); ++i) {
    result.value += 8 * (plus[i] - minus[i]) - (plus2[i] - minus2[i]);
    size = std::max(size, std::abs(plus[i]));
  }
  result.value /= 12 * step;
  result.noise = 2 * kEpsilon * size * std::sqrt(static_cast<double>(plus.size())) / step;
  return result;
}

struct Worst {
  double error = 0;  ///< largest |a - b| - noise
  std::int64_t element = 0;
  double analytic = 0, numeric = 0;
  double scale = 0;  ///< largest |numeric|
};

Worst compare(const GradientPair& pair, const LossTerms& terms, const GradientCheckOptions& options) {
  double* value = pair.value.as<double>();
  const double* gradient = pair.gradient.as<double>();
  const std::int64_t count = pair.value.numel();
  const std::int64_t checked = options.max_elements > 0 ? std::min(count, options.max_elements) : count;
  Worst worst;
  for (std::int64_t k = 0; k < checked; ++k) {
    const std::int64_t i = k * count / checked;
    const Difference numeric = differentiate(value[i], terms, options.step);
    worst.scale = std::max(worst.scale, std::abs(numeric.value));
    const double error = std::abs(gradient[i] - numeric.value) - numeric.noise;
    if (error > worst.error || !std::isfinite(error)) {
      worst.error = std::isfinite(error) ? error : std::numeric_limits<double>::infinity();
      worst.element = i;
      worst.analytic = gradient[i];
      worst.numeric = numeric.value;
    }
  }
  return worst;
}

/// |a - 2 b| over |b|: a gradient accumulated twice against once.
double doubling_error(ConstView twice, ConstView once) {
  double error = 0, scale = 0;
  for (std::int64_t i = 0; i < once.numel(); ++i) {
    error = std::max(error, std::abs(twice.as<double>()[i] - 2 * once.as<double>()[i]));
    scale = std::max(scale, std::abs(once.as<double>()[i]));
  }
  return scale > 0 ? error / scale : error;
}

}  // namespace

::testing::AssertionResult gradients_agree(const std::vector<GradientPair>& pairs, const LossTerms& terms,
                                           const GradientCheckOptions& options) {
  std::vector<Worst> results;
  double largest = 0;
  for (const GradientPair& pair : pairs) {
    if (pair.value.numel() != pair.gradient.numel()) {
      return ::testing::AssertionFailure() << pair.name << ": " << pair.gradient.numel() << " gradients of "
                                           << pair.value.numel();
    }
    results.push_back(compare(pair, terms, options));
    largest = std::max(largest, results.back().scale);
  }
  auto verdict = ::testing::AssertionSuccess();
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    const Worst& worst = results[i];
    const double relative = worst.error / std::max({worst.scale, 1e-12 * largest, std::numeric_limits<double>::min()});
    if (relative <= options.tolerance) continue;
    if (verdict) verdict = ::testing::AssertionFailure();
    verdict << "\n  " << pairs[i].name << " " << pairs[i].value.shape.str() << ": relative " << relative << " at element "
            << worst.element << ", analytic " << worst.analytic << ", numeric " << worst.numeric;
  }
  if (largest == 0) return ::testing::AssertionFailure() << "every difference is zero: nothing was checked";
  return verdict;
}

::testing::AssertionResult layer_gradients_agree(nn::Layer& layer, nn::Context& ctx, View x,
                                                 const GradientCheckOptions& options) {
  nn::ParameterList parameters;
  layer.collect(parameters);
  std::erase_if(parameters, [](const nn::Parameter* p) { return !p->options().trainable; });
  for (nn::Parameter* parameter : parameters) parameter->zero_grad();

  Tensor weights;
  const auto backward = [&] {
    nn::SavedPtr saved;
    const Tensor y = layer.forward(ctx, x, &saved);
    if (!weights.defined()) weights = normal_tensor(y.shape(), options.seed);
    Tensor d_x = layer.backward_input(ctx, weights, *saved);
    layer.backward_weight(ctx, *saved);
    return d_x;
  };
  const Tensor d_x = backward();
  std::vector<Tensor> gradients;
  std::vector<GradientPair> pairs{{"x", x, d_x}};
  for (nn::Parameter* parameter : parameters) {
    Tensor copy = Tensor::empty(parameter->shape(), parameter->dtype());
    std::memcpy(copy.view().data, parameter->grad().data, copy.bytes());
    gradients.push_back(std::move(copy));
  }
  const Tensor d_x_again = backward();
  if (std::memcmp(d_x.view().data, d_x_again.view().data, d_x.bytes()) != 0) {
    return ::testing::AssertionFailure() << "d_x differs between two equal passes";
  }
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    if (const double error = doubling_error(parameters[i]->grad(), gradients[i]); error > 1e-12) {
      return ::testing::AssertionFailure() << parameters[i]->name() << ": two passes give not twice the gradient of one, off by "
                                           << error;
    }
    pairs.push_back({parameters[i]->name(), parameters[i]->value(), gradients[i]});
  }
  return gradients_agree(
      pairs,
      [&] {
        const Tensor y = layer.forward(ctx, x, nullptr);
        std::vector<double> terms(static_cast<std::size_t>(y.numel()));
        for (std::size_t i = 0; i < terms.size(); ++i) terms[i] = y.span<double>()[i] * weights.span<double>()[i];
        return terms;
      },
      options);
}

void fill_normal(View values, std::uint64_t seed, double std, double mean) {
  const Random random(seed, RandomPurpose::kSynthetic);
  kernels::visit_float(values.dtype, [&]<class T>() {
    T* data = values.as<T>();
    for (std::int64_t i = 0; i < values.numel(); ++i)
      data[i] = static_cast<T>(mean + std * random.normal(static_cast<std::uint64_t>(i)));
  });
}

Tensor normal_tensor(Shape shape, std::uint64_t seed, double std, DType dtype) {
  Tensor tensor = Tensor::empty(shape, dtype);
  fill_normal(tensor, seed, std);
  return tensor;
}

void randomize(const nn::ParameterList& parameters, std::uint64_t seed, double std) {
  for (nn::Parameter* parameter : parameters) {
    const bool is_gain = parameter->options().init.kind == nn::Init::Kind::kOnes;
    fill_normal(parameter->value(), seed ^ stream_of(parameter->name()), std, is_gain ? 1.0 : 0.0);
  }
}

double relative_difference(ConstView a, ConstView b) {
  HADAL_CHECK(a.shape == b.shape, "{} against {}", a.shape.str(), b.shape.str());
  double error = 0, scale = 0;
  kernels::visit_float(a.dtype, [&]<class T>() {
    for (std::int64_t i = 0; i < b.numel(); ++i) {
      const double difference = static_cast<double>(a.as<T>()[i]) - static_cast<double>(b.as<T>()[i]);
      if (!std::isfinite(difference)) error = std::numeric_limits<double>::infinity();
      error = std::max(error, std::abs(difference));
      scale = std::max(scale, std::abs(static_cast<double>(b.as<T>()[i])));
    }
  });
  return scale > 0 ? error / scale : error;
}

}  // namespace hadal::test
