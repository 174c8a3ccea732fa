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
    const int turns = turns_for(4.0 * static_cast<double>(rows * width));
    const Copies x(random_tensor(stream, {rows, width}, kBf16, 1), turns), d_y(random_tensor(stream, {rows, width}, kBf16, 3), turns);
    const Copies rest(random_tensor(stream, {rows, width}, kBf16, 4), turns);
    const Tensor gain = random_tensor(stream, {width}, kF32, 2);
    Copies y(device_tensor({rows, width}, kBf16), turns), rho(device_tensor({rows}, kF32), turns);
    Tensor d_gain = device_tensor({width}, kF32);
    const auto forward = [&](int t) { run(stream, RmsNormForward{.x = x[t], .gain = gain, .y = y[t], .inverse_rms = rho[t]}); };
    if (!residual) table.add_bytes("rms_norm_forward", shape, time_turns_ms(stream, turns, forward), bytes_of({x[0], y[0], rho[0], gain}));
    const auto backward = [&](int t) {
      run(stream, RmsNormBackward{.x = x[t],
                                  .gain = gain,
                                  .inverse_rms = rho[t],
                                  .d_y = d_y[t],
                                  .d_residual = residual ? rest[t].view() : ConstView{},
                                  .d_x = y[t],
                                  .d_gain = d_gain});
    };
    table.add_bytes("rms_norm_backward", shape, time_turns_ms(stream, turns, backward),
                    bytes_of({x[0], d_y[0], y[0], rho[0], gain, d_gain}) + (residual ? bytes_of({rest[0]}) : 0.0));
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
  const int turns = turns_for(6.0 * kRows * kWidth);
  const Copies gate_up(random_tensor(stream, {kRows, 2 * kWidth}, kBf16, 1), turns), d_h(random_tensor(stream, {kRows, kWidth}, kBf16, 2), turns);
  const Tensor weight = random_tensor(stream, {kRows}, kF32, 3);
  Copies h(device_tensor({kRows, kWidth}, kBf16), turns), d_gate_up(device_tensor({kRows, 2 * kWidth}, kBf16), turns);
  Tensor d_weight = device_tensor({kRows}, kF32);
  const auto forward = [&](int t) { run(stream, SwigluForward{.gate_up = gate_up[t], .row_weight = {}, .h = h[t]}); };
  table.add_bytes("swiglu", "16384x2816", time_turns_ms(stream, turns, forward), bytes_of({gate_up[0], h[0]}));
  const auto backward = [&](int t) {
    run(stream, SwigluBackward{
                    .gate_up = gate_up[t], .row_weight = weight, .d_h = d_h[t], .d_gate_up = d_gate_up[t], .d_row_weight = d_weight});
  };
  table.add_bytes("swiglu_backward", "16384x2816", time_turns_ms(stream, turns, backward), bytes_of({gate_up[0], d_h[0], d_gate_up[0]}));
}

void adamw(Table& table) {
  Stream& stream = table.stream();
  constexpr std::int64_t kCount = std::int64_t{256} << 20;
  const Tensor grad = random_tensor(stream, {kCount}, kF32, 1, 0.01);
  Tensor norm = device_tensor({1}, DType::kF64);
  table.add_bytes("sum_squares", "256M", time_turns_ms(stream, 1, [&](int) { run(stream, SumSquares{.x = grad, .result = norm}); }),
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
    table.add_bytes("adamw", moments == kF32 ? "256M" : "256M bf16 moments", time_turns_ms(stream, 1, [&](int) { run(stream, step); }),
                    bytes_of({grad, value, value, m, m, v, v, working}));
  }
}

void others(Table& table) {
  Stream& stream = table.stream();
  constexpr std::int64_t kTokens = 16384, kHeads = 16, kTotal = 192, kTurned = 64, kWidth = 2048;
  constexpr double kTurnedBytes = 2.0 * kTokens * kHeads * kTurned, kRowBytes = 2.0 * kTokens * kWidth;
  {
    const int turns = turns_for(2 * kTurnedBytes);
    Copies q(random_tensor(stream, {kTokens, kHeads * kTotal}, kBf16, 1), turns);
    const Tensor cosines = random_tensor(stream, {kTokens, kTurned / 2}, kF32, 2), sines = random_tensor(stream, {kTokens, kTurned / 2}, kF32, 3);
    const auto turn = [&](int t) {
      const Heads turned = heads_of(q[t].view(), kHeads, kTotal, kTotal - kTurned, kTurned);
      run(stream, Rope{.x = turned, .y = turned, .cosines = cosines, .sines = sines});
    };
    table.add_bytes("rope", "16384 h16 64 of 192", time_turns_ms(stream, turns, turn), 2 * kTurnedBytes + bytes_of({cosines, sines}));
  }
  const int turns = turns_for(3 * kRowBytes);
  const Copies a(random_tensor(stream, {kTokens, kWidth}, kBf16, 4), turns), b(random_tensor(stream, {kTokens, kWidth}, kBf16, 5), turns);
  Copies y(device_tensor({kTokens, kWidth}, kBf16), turns);
  const auto sum = [&](int t) { run(stream, Add{.a = a[t], .b = b[t], .y = y[t]}); };
  table.add_bytes("add", "16384x2048", time_turns_ms(stream, turns, sum), 3 * kRowBytes);
}

void vocab(Table& table) {
  Stream& stream = table.stream();
  constexpr std::int64_t kRows = 2048, kColumns = 51200;
  const int turns = turns_for(4.0 * kRows * kColumns);
  Copies logits(random_tensor(stream, {kRows, kColumns}, kBf16, 1), turns);
  const Tensor targets = Tensor::zeros({kRows}, DType::kI32, kGpu), weight = random_tensor(stream, {kRows}, kF32, 2);
  Tensor statistics = device_tensor({kRows, kNumVocabStatistics}, kF32);
  const auto terms = [&](int t) { run(stream, VocabSoftmaxTerms{.logits = logits[t], .targets = targets, .statistics = statistics}); };
  table.add_bytes("vocab_softmax_terms", "2048x51200", time_turns_ms(stream, turns, terms), bytes_of({logits[0], logits[0]}));
  const auto gradient = [&](int t) {
    run(stream, VocabSoftmaxGradient{.terms = logits[t], .factor = weight, .targets = targets, .loss_weight = weight});
  };
  table.add_bytes("vocab_softmax_gradient", "2048x51200", time_turns_ms(stream, turns, gradient), bytes_of({logits[0], logits[0]}));
}

const RegisterBench registered_rms_norm{"rms_norm", rms_norm};
const RegisterBench registered_swiglu{"swiglu", swiglu};
const RegisterBench registered_adamw{"adamw", adamw};
const RegisterBench registered_others{"rope_add", others};
const RegisterBench registered_vocab{"vocab_cross_entropy", vocab};

}  // namespace
}  // namespace hadal::bench
