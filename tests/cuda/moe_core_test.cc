// Guards: a MoE layer's ops in a row, as a step runs them, router to combine and back, on the device against the CPU in f64: dtypes fit
// together, what one op writes the next one reads, all of it without the host.
#include <algorithm>

#include "core/rng.h"
#include "kernels/grouped_gemm.h"
#include "kernels/router.h"
#include "kernels/rows.h"
#include "kernels/swiglu.h"
#include "tests/cuda/twin.h"

namespace hadal::test {
namespace {

struct Size {
  std::int64_t tokens, hidden, experts, width, top_k;
  std::int64_t idle = 0;  ///< so many experts at the end that no token chooses
};

/// Every token's logits are distinct multiples of 1/4, in random order: no choice is near another.
Twin clear_logits(const Size& s) {
  Tensor logits = Tensor::empty({s.tokens, s.experts}, DType::kF64);
  const Random random(7, RandomPurpose::kSynthetic, 8);
  std::vector<double> row(static_cast<std::size_t>(s.experts));
  std::uint64_t next = 0;
  for (std::int64_t t = 0; t < s.tokens; ++t) {
    const auto busy = static_cast<std::size_t>(s.experts - s.idle);
    for (std::size_t e = 0; e < row.size(); ++e) row[e] = 0.25 * static_cast<double>(e) - (e < busy ? 1.0 : 9.0);
    for (std::size_t i = busy; i > 1; --i) std::swap(row[i - 1], row[random.below(next++, i)]);
    std::ranges::copy(row, logits.as<double>() + t * s.experts);
  }
  return {std::move(logits), DType::kF32};
}

/// What one side allocates on its way.
struct Workspace {
  Side side;
  DType dtype;

  Device device() const { return side.on_device ? kGpu : kCpu; }
  Tensor rows(Shape shape) const { return Tensor::empty(shape, side.on_device ? dtype : DType::kF64, device()); }
  Tensor sums(Shape shape) const { return Tensor::empty(shape, side.on_device ? DType::kF32 : DType::kF64, device()); }
  Tensor ints(Shape shape, DType kind = DType::kI32) const { return Tensor::empty(shape, kind, device()); }
};

class MoeCore {
 public:
  MoeCore(const Size& size, DType dtype, const kernels::RouterOptions& options)
      : size_(size),
        dtype_(dtype),
        options_(options),
        x_(Twin::normal({size.tokens, size.hidden}, dtype, 1)),
        logits_(clear_logits(size)),
        shared_(Twin::normal({size.tokens, size.hidden}, dtype, 2)),
        d_y_(Twin::normal({size.tokens, size.hidden}, dtype, 3)),
        gate_up_(Twin::normal({size.experts, 2 * size.width, size.hidden}, dtype, 4, 0.3)),
        down_(Twin::normal({size.experts, size.hidden, size.width}, dtype, 5, 0.3)),
        y_(Twin::output({size.tokens, size.hidden}, dtype)),
        d_x_(Twin::output({size.tokens, size.hidden}, dtype)),
        d_logits_(Twin::output({size.tokens, size.experts}, DType::kF32)),
        d_gate_up_(Twin::zeros({size.experts, 2 * size.width, size.hidden}, DType::kF32)),
        d_down_(Twin::zeros({size.experts, size.hidden, size.width}, DType::kF32)) {}

  void check(double tolerance) {
    run_on_both({&x_, &logits_, &shared_, &d_y_, &gate_up_, &down_}, {&y_, &d_x_, &d_logits_, &d_gate_up_, &d_down_},
                [this](Stream& stream, Side side) { step(stream, Workspace{side, dtype_}); });
    EXPECT_TRUE(y_.agrees(tolerance));
    EXPECT_TRUE(d_x_.agrees(tolerance));
    EXPECT_TRUE(d_logits_.agrees(tolerance));
    EXPECT_TRUE(d_gate_up_.agrees(tolerance));
    EXPECT_TRUE(d_down_.agrees(tolerance));
  }

 private:
  void step(Stream& stream, const Workspace& w) {
    const std::int64_t tokens = size_.tokens, num_rows = tokens * size_.top_k;
    const auto column = [num_rows](ConstView x) { return x.reshape({num_rows, 1}); };
    Tensor scores = w.sums({tokens, size_.experts}), weights = w.sums({tokens, size_.top_k}), experts = w.ints({tokens, size_.top_k});
    run(stream, kernels::RouterForward{.options = options_,
                                       .logits = w.side(logits_),
                                       .bias = {},
                                       .token = {},
                                       .scores = scores,
                                       .experts = experts,
                                       .weights = weights});
    Tensor offsets = w.ints({size_.experts + 1}, DType::kI64), row_token = w.ints({num_rows}), row_pair = w.ints({num_rows});
    Tensor pair_row = w.ints({tokens, size_.top_k}), row_weight = w.sums({num_rows});
    run(stream, kernels::DispatchPlan{.num_experts = size_.experts,
                                      .experts = experts,
                                      .offsets = offsets,
                                      .row_token = row_token,
                                      .row_pair = row_pair,
                                      .pair_row = pair_row});
    run(stream, kernels::GatherRows{.x = column(weights), .index = row_pair, .y = row_weight.view().reshape({num_rows, 1})});

    Tensor rows = w.rows({num_rows, size_.hidden}), gate_up = w.rows({num_rows, 2 * size_.width}), h = w.rows({num_rows, size_.width});
    Tensor out = w.rows({num_rows, size_.hidden});
    run(stream, kernels::SpreadRows{.x = w.side(x_), .index = pair_row, .y = rows});
    run(stream, kernels::GroupedGemmForward{.x = rows, .offsets = offsets, .w = w.side(gate_up_), .y = gate_up});
    run(stream, kernels::SwigluForward{.gate_up = gate_up, .row_weight = row_weight, .h = h});
    run(stream, kernels::GroupedGemmForward{.x = h, .offsets = offsets, .w = w.side(down_), .y = out});
    run(stream, kernels::CombineRows{.x = out, .index = pair_row, .base = w.side(shared_), .y = w.side(y_)});

    Tensor d_out = w.rows({num_rows, size_.hidden}), d_h = w.rows({num_rows, size_.width}), d_rows = w.rows({num_rows, size_.hidden});
    Tensor d_row_weight = w.sums({num_rows}), d_weights = w.sums({tokens, size_.top_k});
    run(stream, kernels::GatherRows{.x = w.side(d_y_), .index = row_token, .y = d_out});
    run(stream, kernels::GroupedGemmBackwardInput{.d_y = d_out, .offsets = offsets, .w = w.side(down_), .d_x = d_h});
    run(stream, kernels::GroupedGemmBackwardWeight{.d_y = d_out, .x = h, .offsets = offsets, .d_w = w.side(d_down_)});
    run(stream,
        kernels::SwigluBackward{.gate_up = gate_up, .row_weight = row_weight, .d_h = d_h, .d_gate_up = gate_up, .d_row_weight = d_row_weight});
    run(stream, kernels::GroupedGemmBackwardInput{.d_y = gate_up, .offsets = offsets, .w = w.side(gate_up_), .d_x = d_rows});
    run(stream, kernels::GroupedGemmBackwardWeight{.d_y = gate_up, .x = rows, .offsets = offsets, .d_w = w.side(d_gate_up_)});
    run(stream, kernels::CombineRows{.x = d_rows, .index = pair_row, .base = {}, .y = w.side(d_x_)});
    run(stream, kernels::GatherRows{
                    .x = column(d_row_weight), .index = pair_row.view().reshape({num_rows}), .y = d_weights.view().reshape({num_rows, 1})});
    run(stream, kernels::RouterBackward{.options = options_,
                                        .scores = scores,
                                        .experts = experts,
                                        .d_weights = d_weights,
                                        .d_scores = {},
                                        .d_logits = w.side(d_logits_)});
  }

  Size size_;
  DType dtype_;
  kernels::RouterOptions options_;
  Twin x_, logits_, shared_, d_y_, gate_up_, down_, y_, d_x_, d_logits_, d_gate_up_, d_down_;
};

const Size kSizes[] = {{1, 8, 4, 8, 3}, {37, 24, 5, 16, 2}, {65, 72, 16, 40, 6, 7}, {300, 64, 16, 24, 4}, {131, 136, 8, 72, 8}};

kernels::RouterOptions options_of(const Size& size, bool softmax) {
  kernels::RouterOptions options;
  options.top_k = size.top_k;
  options.scaling = 2.5;
  if (softmax) {
    options.score = kernels::RouterOptions::Score::kSoftmax;
    options.normalize = false;
  }
  return options;
}

TEST(CudaMoeCore, ForwardAndBackwardAgreeInF32) {
  for (const Size& size : kSizes) {
    for (const bool softmax : {false, true}) {
      SCOPED_TRACE(testing::Message() << size.tokens << " tokens, " << size.experts << " experts, softmax " << softmax);
      MoeCore(size, DType::kF32, options_of(size, softmax)).check(2e-5);
    }
  }
}

TEST(CudaMoeCore, ForwardAndBackwardAgreeInBf16) {
  for (const Size& size : kSizes) {
    SCOPED_TRACE(testing::Message() << size.tokens << " tokens, " << size.experts << " experts");
    MoeCore(size, DType::kBf16, options_of(size, false)).check(2e-2);
  }
}

TEST(CudaMoeCore, ForcedRoutingAgrees) {
  kernels::RouterOptions options = options_of(kSizes[2], true);
  options.forced = true;
  MoeCore(kSizes[2], DType::kBf16, options).check(2e-2);
}

}  // namespace
}  // namespace hadal::test
