// The gate of sparse attention against plain loops, over sizes around the vector width and the chunks of rows, with guard
// elements around every output; the bias's gradient accumulates.
#include "kernels/branch_gate.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "core/rng.h"

namespace hadal {
namespace {

constexpr double kGuard = 12345.0;

/// A buffer with one guard element before and one after.
template <class T>
struct Guarded {
  explicit Guarded(Shape shape, std::uint64_t seed = 0)
      : storage(static_cast<std::size_t>(shape.numel() + 2), T(kGuard)), view() {
    const Random random(seed, RandomPurpose::kSynthetic);
    for (std::int64_t i = 0; i < shape.numel() && seed != 0; ++i) {
      storage[static_cast<std::size_t>(i + 1)] = static_cast<T>(random.normal(static_cast<std::uint64_t>(i)));
    }
    view = View{storage.data() + 1, kDTypeOf<T>, shape, kCpu};
  }
  double operator[](std::int64_t i) const { return static_cast<double>(storage[static_cast<std::size_t>(i + 1)]); }
  bool intact() const { return storage.front() == T(kGuard) && storage.back() == T(kGuard); }

  std::vector<T> storage;
  View view;
};

template <class T>
void check(std::int64_t rows, std::int64_t heads, std::int64_t width, double tolerance) {
  const std::int64_t total = heads * width, gates = 3 * heads;
  const Guarded<T> logits({rows, gates}, 1), bias({gates}, 2), d_y({rows, total}, 3), o0({rows, total}, 4), o1({rows, total}, 5),
      o2({rows, total}, 6);
  Guarded<T> g({rows, gates}), y({rows, total}), d_o0({rows, total}), d_o1({rows, total}), d_o2({rows, total}),
      d_logits({rows, gates}), d_bias({gates}, 7);
  const Guarded<T> d_bias_before = d_bias;
  Stream stream;
  run(stream,
      kernels::BranchGateForward{
          .heads = heads, .logits = logits.view, .bias = bias.view, .o = {o0.view, o1.view, o2.view}, .g = g.view, .y = y.view});
  run(stream, kernels::BranchGateBackward{.heads = heads,
                                          .g = g.view,
                                          .o = {o0.view, o1.view, o2.view},
                                          .d_y = d_y.view,
                                          .d_o = {d_o0.view, d_o1.view, d_o2.view},
                                          .d_logits = d_logits.view,
                                          .d_bias = d_bias.view});
  const Guarded<T>* o[3] = {&o0, &o1, &o2};
  const Guarded<T>* d_o[3] = {&d_o0, &d_o1, &d_o2};
  std::vector<double> bias_sum(static_cast<std::size_t>(gates), 0.0);
  for (std::int64_t t = 0; t < rows; ++t) {
    for (std::int64_t h = 0; h < heads; ++h) {
      std::vector<double> mixed(static_cast<std::size_t>(width), 0.0);
      for (std::int64_t b = 0; b < 3; ++b) {
        const std::int64_t at = t * gates + b * heads + h;
        const double gate = 1 / (1 + std::exp(-(logits[at] + bias[b * heads + h])));
        EXPECT_NEAR(g[at], gate, tolerance);
        double dot = 0;
        for (std::int64_t i = 0; i < width; ++i) {
          const std::int64_t element = t * total + h * width + i;
          mixed[static_cast<std::size_t>(i)] += gate * (*o[b])[element];
          dot += d_y[element] * (*o[b])[element];
          EXPECT_NEAR((*d_o[b])[element], gate * d_y[element], 4 * tolerance);
        }
        EXPECT_NEAR(d_logits[at], dot * gate * (1 - gate), 20 * tolerance);
        bias_sum[static_cast<std::size_t>(b * heads + h)] += dot * gate * (1 - gate);
      }
      for (std::int64_t i = 0; i < width; ++i)
        EXPECT_NEAR(y[t * total + h * width + i], mixed[static_cast<std::size_t>(i)], 8 * tolerance);
    }
  }
  for (std::int64_t i = 0; i < gates; ++i) {
    EXPECT_NEAR(d_bias[i], d_bias_before[i] + bias_sum[static_cast<std::size_t>(i)], 100 * tolerance * std::sqrt(double(rows)));
  }
  for (const Guarded<T>* buffer : {&g, &y, &d_o0, &d_o1, &d_o2, &d_logits, &d_bias}) EXPECT_TRUE(buffer->intact());
}

TEST(BranchGate, EqualsPlainLoops) {
  for (const auto& [rows, heads, width] : {std::tuple{1, 1, 1}, {3, 2, 7}, {33, 3, 8}, {70, 1, 19}, {1100, 2, 16}, {5, 4, 33}}) {
    check<double>(rows, heads, width, 1e-14);
    check<float>(rows, heads, width, 1e-6);
  }
}

TEST(BranchGate, SaturatesToExactlyOpenAndShut) {
  Tensor logits = Tensor::empty({1, 3}, DType::kF32), bias = Tensor::zeros({3}, DType::kF32),
         o = Tensor::zeros({1, 4}, DType::kF32);
  Tensor g = Tensor::empty({1, 3}, DType::kF32), y = Tensor::empty({1, 4}, DType::kF32);
  const float extremes[3] = {1e4f, -1e4f, 0.0f};
  std::copy(extremes, extremes + 3, logits.as<float>());
  Stream stream;
  run(stream, kernels::BranchGateForward{
                  .heads = 1, .logits = logits, .bias = bias, .o = {o.view(), o.view(), o.view()}, .g = g, .y = y});
  EXPECT_EQ(g.as<float>()[0], 1.0f);
  EXPECT_EQ(g.as<float>()[1], 0.0f);
  EXPECT_EQ(g.as<float>()[2], 0.5f);
}

}  // namespace
}  // namespace hadal
