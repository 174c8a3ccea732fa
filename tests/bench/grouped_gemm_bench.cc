// Expert products of a MoE layer: eight experts, unequal rows.
#include <fmt/core.h>

#include <string>

#include "bench.h"
#include "kernels/grouped_gemm.h"

namespace hadal::bench {
namespace {

enum class Pass { kForward, kInput, kWeight };

void experts(benchmark::State& state, Pass pass, std::int64_t mean_rows, std::int64_t in, std::int64_t out) {
  constexpr std::int64_t kExperts = 8;
  Tensor offsets = Tensor::zeros({kExperts + 1}, DType::kI64);
  for (std::int64_t e = 0; e < kExperts; ++e) {
    offsets.as<std::int64_t>()[e + 1] = offsets.as<std::int64_t>()[e] + mean_rows * (4 + e % 4 * 2) / 7;
  }
  const std::int64_t rows = offsets.as<std::int64_t>()[kExperts];
  Tensor x = filled<float>({rows, in}, 1), w = filled<float>({kExperts, out, in}, 2), y = filled<float>({rows, out}, 3);
  Stream stream;
  const double seconds = best_of(state, [&] {
    if (pass == Pass::kForward) run(stream, kernels::GroupedGemmForward{.x = x, .offsets = offsets, .w = w, .y = y});
    if (pass == Pass::kInput) run(stream, kernels::GroupedGemmBackwardInput{.d_y = y, .offsets = offsets, .w = w, .d_x = x});
    if (pass == Pass::kWeight) run(stream, kernels::GroupedGemmBackwardWeight{.d_y = y, .x = x, .offsets = offsets, .d_w = w});
  });
  report_flops(state, DType::kF32, 2.0 * static_cast<double>(rows) * static_cast<double>(in) * static_cast<double>(out), seconds);
}

const bool registered = [] {
  for (const std::int64_t rows : {64, 1024}) {
    for (const auto& [pass, pass_name] :
         {std::pair{Pass::kForward, "forward"}, {Pass::kInput, "input"}, {Pass::kWeight, "weight"}}) {
      for (const std::int64_t out : {256, 512}) {
        const auto name = fmt::format("grouped_gemm/f32/{}/8x{}x256x{}", pass_name, rows, out);
        benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) { experts(state, pass, rows, 256, out); })
            ->UseManualTime()
            ->Iterations(30)
            ->Unit(benchmark::kMicrosecond);
      }
    }
  }
  return true;
}();

}  // namespace
}  // namespace hadal::bench
