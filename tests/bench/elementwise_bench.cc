// Ops bound by memory: bytes that must move (each operand once), as a share of the copy bandwidth of the threads in use, over
// operands that no cache holds. A copy writes half of its bytes, which costs more than reading: ops that mostly read may pass 1.
#include <fmt/core.h>

#include <functional>
#include <string>

#include "bench.h"
#include "kernels/adamw.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"
#include "kernels/router.h"
#include "kernels/rows.h"
#include "kernels/swiglu.h"

namespace hadal::bench {
namespace {

constexpr std::int64_t kTokens = 65536, kWidth = 256;

std::size_t bytes_of(std::initializer_list<const Tensor*> tensors) {
  std::size_t bytes = 0;
  for (const Tensor* tensor : tensors) bytes += tensor->bytes();
  return bytes;
}

Tensor zeros(Shape shape, DType dtype = DType::kF32) { return Tensor::zeros(shape, dtype); }

/// Times op(stream); `bytes` is what must move.
template <class Op>
void measure(benchmark::State& state, std::size_t bytes, const Op& op) {
  Stream stream;
  op(stream);
  const double seconds = best_of(state, [&] { op(stream); });
  report_bytes(state, static_cast<double>(bytes), seconds);
}

void rms_norm_forward(benchmark::State& state) {
  const Tensor x = filled<float>({kTokens, kWidth}), gain = filled<float>({kWidth});
  Tensor y = zeros({kTokens, kWidth}), rho = zeros({kTokens});
  measure(state, bytes_of({&x, &y}),
          [&](Stream& stream) { run(stream, kernels::RmsNormForward{.x = x, .gain = gain, .y = y, .inverse_rms = rho}); });
}

void rms_norm_backward(benchmark::State& state) {
  const Tensor x = filled<float>({kTokens, kWidth}), gain = filled<float>({kWidth}), rho = filled<float>({kTokens});
  const Tensor d_y = filled<float>({kTokens, kWidth}, 3), d_residual = filled<float>({kTokens, kWidth}, 4);
  Tensor d_x = zeros({kTokens, kWidth}), d_gain = zeros({kWidth});
  measure(state, bytes_of({&x, &d_y, &d_residual, &d_x}), [&](Stream& stream) {
    run(stream,
        kernels::RmsNormBackward{
            .x = x, .gain = gain, .inverse_rms = rho, .d_y = d_y, .d_residual = d_residual, .d_x = d_x, .d_gain = d_gain});
  });
}

void rope(benchmark::State& state) {
  constexpr std::int64_t kHeads = 8, kHead = 48, kRotated = 16, kSequence = 512;
  Tensor q = filled<float>({kTokens, kHeads * kHead});
  const Tensor cosines = filled<float>({kSequence, kRotated / 2}), sines = filled<float>({kSequence, kRotated / 2}, 2);
  const kernels::Heads rotated = kernels::heads_of(q.view(), kHeads, kHead, kHead - kRotated, kRotated);
  measure(state, 2 * sizeof(float) * kTokens * kHeads * kRotated, [&](Stream& stream) {
    run(stream, kernels::Rope{.batch = kTokens / kSequence, .x = rotated, .y = rotated, .cosines = cosines, .sines = sines});
  });
}

void swiglu_forward(benchmark::State& state) {
  const Tensor gate_up = filled<float>({2 * kTokens, 2 * kWidth}), weight = filled<float>({2 * kTokens});
  Tensor h = zeros({2 * kTokens, kWidth});
  measure(state, bytes_of({&gate_up, &h}),
          [&](Stream& stream) { run(stream, kernels::SwigluForward{.gate_up = gate_up, .row_weight = weight, .h = h}); });
}

void swiglu_backward(benchmark::State& state) {
  const Tensor gate_up = filled<float>({2 * kTokens, 2 * kWidth}), weight = filled<float>({2 * kTokens});
  const Tensor d_h = filled<float>({2 * kTokens, kWidth}, 3);
  Tensor d_gate_up = zeros({2 * kTokens, 2 * kWidth}), d_weight = zeros({2 * kTokens});
  measure(state, bytes_of({&gate_up, &d_h, &d_gate_up}), [&](Stream& stream) {
    run(stream, kernels::SwigluBackward{
                    .gate_up = gate_up, .row_weight = weight, .d_h = d_h, .d_gate_up = d_gate_up, .d_row_weight = d_weight});
  });
}

void adamw(benchmark::State& state) {
  const Tensor grad = filled<float>({12'000'000}), rates = kernels::adamw_rates(1e-4, 0.9, 0.95, 1);
  Tensor value = filled<float>(grad.shape(), 2), m = zeros(grad.shape()), v = zeros(grad.shape());
  measure(state, bytes_of({&grad, &value, &value, &m, &m, &v, &v}), [&](Stream& stream) {
    run(stream, kernels::AdamW{.grad = grad, .value = value, .m = m, .v = v, .ema = {}, .rates = rates, .weight_decay = 0.1});
  });
}

void adamw_bf16_moments(benchmark::State& state) {
  const Tensor grad = filled<float>({12'000'000}), rates = kernels::adamw_rates(1e-4, 0.9, 0.95, 1);
  Tensor value = filled<float>(grad.shape(), 2), m = zeros(grad.shape(), DType::kBf16), v = zeros(grad.shape(), DType::kBf16);
  measure(state, bytes_of({&grad, &value, &value, &m, &m, &v, &v}), [&](Stream& stream) {
    run(stream, kernels::AdamW{.grad = grad, .value = value, .m = m, .v = v, .ema = {}, .rates = rates, .weight_decay = 0.1});
  });
}

void sum_squares(benchmark::State& state) {
  const Tensor x = filled<float>({12'000'000});
  Tensor result = zeros({1}, DType::kF64);
  measure(state, x.bytes(), [&](Stream& stream) { run(stream, kernels::SumSquares{.x = x, .result = result}); });
}

Tensor indices(std::int64_t count, std::int64_t below) {
  Tensor index = zeros({count}, DType::kI32);
  for (std::int64_t i = 0; i < count; ++i) index.as<std::int32_t>()[i] = static_cast<std::int32_t>(i * 7919 % below);
  return index;
}

void gather_rows(benchmark::State& state) {
  const Tensor x = filled<float>({kTokens, kWidth}), index = indices(2 * kTokens, kTokens);
  Tensor y = zeros({2 * kTokens, kWidth});
  measure(state, 2 * y.bytes(), [&](Stream& stream) { run(stream, kernels::GatherRows{.x = x, .index = index, .y = y}); });
}

void combine_rows(benchmark::State& state) {
  const Tensor x = filled<float>({2 * kTokens, kWidth}), base = filled<float>({kTokens, kWidth}, 2),
               index = indices(2 * kTokens, 2 * kTokens);
  Tensor y = zeros({kTokens, kWidth});
  measure(state, bytes_of({&x, &base, &y}), [&](Stream& stream) {
    run(stream, kernels::CombineRows{.x = x, .index = index.view().reshape({kTokens, 2}), .base = base, .y = y});
  });
}

void scatter_add_rows(benchmark::State& state) {
  constexpr std::int64_t kVocabulary = 8192;
  const Tensor d_y = filled<float>({kTokens, kWidth}), index = indices(kTokens, kVocabulary);
  Tensor d_x = zeros({kVocabulary, kWidth});
  measure(state, 3 * d_y.bytes(),
          [&](Stream& stream) { run(stream, kernels::ScatterAddRows{.d_y = d_y, .index = index, .d_x = d_x}); });
}

void add(benchmark::State& state) {
  const Tensor a = filled<float>({kTokens, kWidth}), b = filled<float>({kTokens, kWidth}, 2);
  Tensor y = zeros({kTokens, kWidth});
  measure(state, bytes_of({&a, &b, &y}), [&](Stream& stream) { run(stream, kernels::Add{.a = a, .b = b, .y = y}); });
}

void router(benchmark::State& state) {
  constexpr std::int64_t kExperts = 8, kTopK = 2;
  const Tensor logits = filled<float>({kTokens, kExperts});
  Tensor scores = zeros({kTokens, kExperts}), experts = zeros({kTokens, kTopK}, DType::kI32), weights = zeros({kTokens, kTopK});
  const Tensor bias = filled<float>({kExperts}, 2);
  const kernels::RouterOptions options{.top_k = kTopK};
  measure(state, bytes_of({&logits, &scores, &experts, &weights}), [&](Stream& stream) {
    run(stream,
        kernels::RouterForward{
            .options = options, .logits = logits, .bias = bias, .token = {}, .scores = scores, .experts = experts, .weights = weights});
  });
}

const bool registered = [] {
  const std::pair<const char*, void (*)(benchmark::State&)> benches[] = {{"rms_norm_forward/f32/65536x256", rms_norm_forward},
                                                                         {"rms_norm_backward/f32/65536x256", rms_norm_backward},
                                                                         {"rope/f32/65536x8x16of48", rope},
                                                                         {"swiglu_forward/f32/131072x256", swiglu_forward},
                                                                         {"swiglu_backward/f32/131072x256", swiglu_backward},
                                                                         {"adamw/f32/12M", adamw},
                                                                         {"adamw/bf16_moments/12M", adamw_bf16_moments},
                                                                         {"sum_squares/f32/12M", sum_squares},
                                                                         {"gather_rows/f32/131072x256", gather_rows},
                                                                         {"combine_rows/f32/65536x2x256", combine_rows},
                                                                         {"scatter_add_rows/f32/65536x256", scatter_add_rows},
                                                                         {"add/f32/65536x256", add},
                                                                         {"router_forward/f32/65536x8top2", router}};
  for (const auto& [name, body] : benches) {
    benchmark::RegisterBenchmark(name, body)->UseManualTime()->Iterations(8)->Unit(benchmark::kMicrosecond);
  }
  return true;
}();

}  // namespace
}  // namespace hadal::bench
