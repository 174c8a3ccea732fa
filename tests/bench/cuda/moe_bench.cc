// The core of a mixture-of-experts layer: grouped product, SwiGLU, grouped product, and their gradients, weights' into f32: added to what
// is there, or written over it as the first micro-batch of a step does (and the peer always). Forced: all experts have equally many rows.
// Natural: the busiest has about three times the mean and the last none, as in the peer's bench.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "gpu_bench.h"
#include "kernels/grouped_gemm.h"
#include "kernels/grouped_swiglu.h"
#include "kernels/swiglu.h"

namespace hadal::bench {
namespace {

struct MoeShape {
  std::int64_t experts, hidden, width, choices, tokens;
  std::string name() const {
    return "e" + std::to_string(experts) + " d" + std::to_string(hidden) + " w" + std::to_string(width) + " k" + std::to_string(choices) + " t" + std::to_string(tokens);
  }
};

/// Ends of the experts' rows: equal, or falling by exp(-2.8) in a scattered order and none for the last (tests/gpu/peers.py, routed_ends).
std::vector<std::int64_t> ends_of(std::int64_t experts, std::int64_t rows, bool forced) {
  std::vector<double> shares;
  for (std::int64_t e = 0; e < experts; ++e) {
    const double natural = e + 1 < experts ? std::exp(-2.8 * static_cast<double>(e * 29 % experts) / static_cast<double>(experts)) : 0.0;
    shares.push_back(forced ? 1.0 : natural);
  }
  const double total = std::accumulate(shares.begin(), shares.end(), 0.0);
  std::vector<std::int64_t> ends{0};
  double sum = 0;
  for (const double share : shares) {
    sum += share;
    ends.push_back(static_cast<std::int64_t>(std::floor(sum / total * static_cast<double>(rows) + 0.5)));
  }
  return ends;
}

void bench_core(Table& table, const MoeShape& s, const std::string& routing, const std::vector<std::int64_t>& ends) {
  Stream& stream = table.stream();
  const std::int64_t rows = s.tokens * s.choices;
  const DType bf16 = DType::kBf16;
  Tensor host = Tensor::empty({s.experts + 1}, DType::kI64);
  std::copy(ends.begin(), ends.end(), host.as<std::int64_t>());
  const Tensor offsets = to_device(stream, host, kGpu);
  const Tensor x = random_tensor(stream, {rows, s.hidden}, bf16, 1), d_y = random_tensor(stream, {rows, s.hidden}, bf16, 2);
  const Tensor up = random_tensor(stream, {s.experts, 2 * s.width, s.hidden}, bf16, 3, 0.02), down = random_tensor(stream, {s.experts, s.hidden, s.width}, bf16, 4, 0.02);
  const Tensor weight = random_tensor(stream, {rows}, DType::kF32, 5);
  Tensor gate_up = Tensor::empty({rows, 2 * s.width}, bf16, kGpu), h = Tensor::empty({rows, s.width}, bf16, kGpu), y = Tensor::empty({rows, s.hidden}, bf16, kGpu);
  Tensor d_gate_up = Tensor::empty({rows, 2 * s.width}, bf16, kGpu), d_h = Tensor::empty({rows, s.width}, bf16, kGpu), d_x = Tensor::empty({rows, s.hidden}, bf16, kGpu);
  Tensor d_weight = Tensor::empty({rows}, DType::kF32, kGpu);
  Tensor d_up = Tensor::zeros(up.shape(), DType::kF32, kGpu), d_down = Tensor::zeros(down.shape(), DType::kF32, kGpu);

  using namespace kernels;
  bool add = true;
  const auto up_forward = [&] { run(stream, GroupedGemmForward{.x = x, .offsets = offsets, .w = up, .y = gate_up}); };
  const auto up_act_forward = [&] {
    run(stream, GroupedSwigluForward{.x = x, .offsets = offsets, .w = up, .row_weight = weight, .gate_up = gate_up, .h = h});
  };
  const auto down_forward = [&] { run(stream, GroupedGemmForward{.x = h, .offsets = offsets, .w = down, .y = y}); };
  const auto down_input = [&] { run(stream, GroupedGemmBackwardInput{.d_y = d_y, .offsets = offsets, .w = down, .d_x = d_h}); };
  const auto down_weight = [&] { run(stream, GroupedGemmBackwardWeight{.d_y = d_y, .x = h, .offsets = offsets, .d_w = d_down, .add = add}); };
  const auto act_backward = [&] {
    run(stream, SwigluBackward{.gate_up = gate_up, .row_weight = weight, .d_h = d_h, .d_gate_up = d_gate_up, .d_row_weight = d_weight});
  };
  const auto up_input = [&] { run(stream, GroupedGemmBackwardInput{.d_y = d_gate_up, .offsets = offsets, .w = up, .d_x = d_x}); };
  const auto up_weight = [&] { run(stream, GroupedGemmBackwardWeight{.d_y = d_gate_up, .x = x, .offsets = offsets, .d_w = d_up, .add = add}); };

  const auto forward = [&] {
    up_act_forward();
    down_forward();
  };
  const auto backward = [&] {
    down_input();
    down_weight();
    act_backward();
    up_input();
    up_weight();
  };
  forward();
  backward();  // each row below finds real values in what it reads

  const double product = 2.0 * static_cast<double>(rows) * static_cast<double>(s.hidden) * static_cast<double>(s.width);
  const std::string shape = s.name() + " " + routing;
  const auto row = [&](const char* name, double flops, const auto& body) { table.add_flops(name, shape, time_ms(stream, body), flops); };
  row("moe_up_forward", 2 * product, up_forward);
  row("moe_up_swiglu_forward", 2 * product, up_act_forward);
  row("moe_down_forward", product, down_forward);
  row("moe_down_backward_input", product, down_input);
  row("moe_up_backward_input", 2 * product, up_input);
  row("moe_down_backward_weight", product, down_weight);
  row("moe_up_backward_weight", 2 * product, up_weight);
  row("moe_core_forward", 3 * product, forward);
  row("moe_core_backward", 6 * product, backward);
  add = false;
  row("moe_down_backward_weight (overwritten)", product, down_weight);
  row("moe_up_backward_weight (overwritten)", 2 * product, up_weight);
  row("moe_core_backward (overwritten)", 6 * product, backward);
}

void bench_moe(Table& table) {
  for (const MoeShape& shape : {MoeShape{64, 2048, 1408, 6, 16384}, MoeShape{128, 2048, 768, 8, 32768}}) {
    for (const bool forced : {true, false}) {
      bench_core(table, shape, forced ? "forced" : "natural", ends_of(shape.experts, shape.tokens * shape.choices, forced));
      trim(kGpu);
    }
  }
}

const RegisterBench registered{"moe", bench_moe};

}  // namespace
}  // namespace hadal::bench
