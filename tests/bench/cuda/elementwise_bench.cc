// Ops bound by memory: each row's bytes are those that the op must read and write once.
#include <fmt/core.h>

#include <initializer_list>
#include <string>

#include "gpu_bench.h"
#include "kernels/adamw.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"
#include "kernels/rows.h"
#include "kernels/swiglu.h"
#include "kernels/vocab_cross_entropy.h"

namespace hadal::bench {
namespace {

using namespace kernels;

constexpr DType kBf16 = DType::kBf16, kF32 = DType::kF32;

Tensor device_tensor(Shape shape, DType dtype) { return Tensor::zeros(shape, dtype, kGpu); }
double bytes_of(std::initializer_list<ConstView> views) {
  double sum = 0;
  for (const ConstView& view : views) sum += static_cast<double>(view.bytes());
  return sum;
}

void rms_norm(Table& table) {
  Stream& stream = table.stream();
  const auto at_size = [&](std::int64_t rows, std::int64_t width, bool residual) {
    const std::string shape = fmt::format("{}x{}{}", rows, width, residual ? " residual" : "");
    const Tensor x = random_tensor(stream, {rows, width}, kBf16, 1), gain = random_tensor(stream, {width}, kF32, 2);
    const Tensor d_y = random_tensor(stream, {rows, width}, kBf16, 3), rest = random_tensor(stream, {rows, width}, kBf16, 4);
    Tensor y = device_tensor({rows, width}, kBf16), rho = device_tensor({rows}, kF32), d_gain = device_tensor({width}, kF32);
    if (!residual) {
      const RmsNormForward forward{.x = x, .gain = gain, .y = y, .inverse_rms = rho};
      table.add_bytes("rms_norm_forward", shape, time_ms(stream, [&] { run(stream, forward); }), bytes_of({x, y, rho, gain}));
    }
    const RmsNormBackward backward{.x = x,
                                   .gain = gain,
                                   .inverse_rms = rho,
                                   .d_y = d_y,
                                   .d_residual = residual ? rest.view() : ConstView{},
                                   .d_x = y,
                                   .d_gain = d_gain};
    table.add_bytes("rms_norm_backward", shape, time_ms(stream, [&] { run(stream, backward); }),
                    bytes_of({x, d_y, y, rho, gain, d_gain}) + (residual ? bytes_of({rest}) : 0.0));
  };
  at_size(8192, 7168, false);
  at_size(8192, 7168, true);
  at_size(16384, 2048, false);
  at_size(16384, 1536, false);
  at_size(16384, 512, false);
}

void swiglu(Table& table) {
  Stream& stream = table.stream();
  constexpr std::int64_t kRows = 16384, kWidth = 1408;
  const Tensor gate_up = random_tensor(stream, {kRows, 2 * kWidth}, kBf16, 1),
               d_h = random_tensor(stream, {kRows, kWidth}, kBf16, 2);
  const Tensor weight = random_tensor(stream, {kRows}, kF32, 3);
  Tensor h = device_tensor({kRows, kWidth}, kBf16), d_gate_up = device_tensor({kRows, 2 * kWidth}, kBf16),
         d_weight = device_tensor({kRows}, kF32);
  const SwigluForward forward{.gate_up = gate_up, .row_weight = {}, .h = h};
  table.add_bytes("swiglu", "16384x2816", time_ms(stream, [&] { run(stream, forward); }), bytes_of({gate_up, h}));
  const SwigluBackward backward{
      .gate_up = gate_up, .row_weight = weight, .d_h = d_h, .d_gate_up = d_gate_up, .d_row_weight = d_weight};
  table.add_bytes("swiglu_backward", "16384x2816", time_ms(stream, [&] { run(stream, backward); }),
                  bytes_of({gate_up, d_h, d_gate_up}));
}

void adamw(Table& table) {
  Stream& stream = table.stream();
  constexpr std::int64_t kCount = std::int64_t{256} << 20;
  const Tensor grad = random_tensor(stream, {kCount}, kF32, 1, 0.01);
  Tensor norm = device_tensor({1}, DType::kF64);
  table.add_bytes("sum_squares", "256M", time_ms(stream, [&] { run(stream, SumSquares{.x = grad, .result = norm}); }),
                  bytes_of({grad}));
  Tensor value = random_tensor(stream, {kCount}, kF32, 2), working = device_tensor({kCount}, kBf16);
  const Tensor rates = to_device(stream, kernels::adamw_rates(1e-4, 0.9, 0.95, 1), kGpu);
  for (const DType moments : {kF32, kBf16}) {
    Tensor m = device_tensor({kCount}, moments), v = device_tensor({kCount}, moments);
    const AdamW step{.grad = grad,
                     .value = value,
                     .m = m,
                     .v = v,
                     .ema = {},
                     .working = working,
                     .grad_norm_squared = norm,
                     .clip_norm = 1,
                     .rates = rates,
                     .weight_decay = 0.1};
    table.add_bytes("adamw", moments == kF32 ? "256M" : "256M bf16 moments", time_ms(stream, [&] { run(stream, step); }),
                    bytes_of({grad, value, value, m, m, v, v, working}));
  }
}

void others(Table& table) {
  Stream& stream = table.stream();
  constexpr std::int64_t kTokens = 16384, kHeads = 16, kTotal = 192, kTurned = 64, kWidth = 2048;
  Tensor q = random_tensor(stream, {kTokens, kHeads * kTotal}, kBf16, 1);
  const Tensor cosines = random_tensor(stream, {kTokens, kTurned / 2}, kF32, 2),
               sines = random_tensor(stream, {kTokens, kTurned / 2}, kF32, 3);
  const Heads turned = heads_of(q.view(), kHeads, kTotal, kTotal - kTurned, kTurned);
  table.add_bytes("rope", "16384 h16 64 of 192",
                  time_ms(stream, [&] { run(stream, Rope{.x = turned, .y = turned, .cosines = cosines, .sines = sines}); }),
                  2.0 * kTokens * kHeads * kTurned * 2 + bytes_of({cosines, sines}));
  const Tensor a = random_tensor(stream, {kTokens, kWidth}, kBf16, 4), b = random_tensor(stream, {kTokens, kWidth}, kBf16, 5);
  Tensor y = device_tensor({kTokens, kWidth}, kBf16);
  table.add_bytes("add", "16384x2048", time_ms(stream, [&] { run(stream, Add{.a = a, .b = b, .y = y}); }), bytes_of({a, b, y}));
}

void vocab(Table& table) {
  Stream& stream = table.stream();
  constexpr std::int64_t kRows = 2048, kColumns = 51200;
  Tensor logits = random_tensor(stream, {kRows, kColumns}, kBf16, 1);
  const Tensor targets = Tensor::zeros({kRows}, DType::kI32, kGpu), weight = random_tensor(stream, {kRows}, kF32, 2);
  Tensor statistics = device_tensor({kRows, kNumVocabStatistics}, kF32);
  table.add_bytes(
      "vocab_softmax_terms", "2048x51200",
      time_ms(stream, [&] { run(stream, VocabSoftmaxTerms{.logits = logits, .targets = targets, .statistics = statistics}); }),
      bytes_of({logits, logits}));
  table.add_bytes(
      "vocab_softmax_gradient", "2048x51200",
      time_ms(stream,
              [&] {
                run(stream, VocabSoftmaxGradient{.terms = logits, .factor = weight, .targets = targets, .loss_weight = weight});
              }),
      bytes_of({logits, logits}));
}

const RegisterBench registered_rms_norm{"rms_norm", rms_norm};
const RegisterBench registered_swiglu{"swiglu", swiglu};
const RegisterBench registered_adamw{"adamw", adamw};
const RegisterBench registered_others{"rope_add", others};
const RegisterBench registered_vocab{"vocab_cross_entropy", vocab};

}  // namespace
}  // namespace hadal::bench
