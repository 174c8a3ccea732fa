// Output head with loss and both gradients: three products and a softmax, against the peak of the products alone.
#include <fmt/core.h>

#include "bench.h"
#include "kernels/linear_cross_entropy.h"

namespace hadal::bench {
namespace {

template <class T>
void head(benchmark::State& state, std::int64_t tokens, std::int64_t width, std::int64_t vocabulary, bool gradient) {
  const Tensor h = filled<T>({tokens, width}, 1), w = filled<T>({vocabulary, width}, 2);
  Tensor targets = Tensor::zeros({tokens}, DType::kI32), loss = Tensor::zeros({1}, DType::kF64);
  Tensor token_loss = Tensor::zeros({tokens}, kDTypeOf<T>), d_h = Tensor::zeros(h.shape(), kDTypeOf<T>);
  Tensor d_w = Tensor::zeros(w.shape(), kDTypeOf<T>);
  for (std::int64_t t = 0; t < tokens; ++t) targets.as<std::int32_t>()[t] = static_cast<std::int32_t>(t * 7919 % vocabulary);
  Stream stream;
  kernels::LinearCrossEntropy args{.h = h, .w = w, .targets = targets, .loss = loss, .token_loss = token_loss};
  if (gradient) {
    args.d_h = d_h;
    args.d_w = d_w;
  }
  const double seconds = best_of(state, [&] { run(stream, args); });
  const double products = gradient ? 3 : 1;
  report_flops(state, kDTypeOf<T>, products * 2 * static_cast<double>(tokens * width) * static_cast<double>(vocabulary), seconds);
}

const bool registered = [] {
  for (const bool gradient : {false, true}) {
    const auto name = fmt::format("linear_cross_entropy/f32/{}/4096x256x8192", gradient ? "train" : "loss");
    benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) { head<float>(state, 4096, 256, 8192, gradient); })
        ->UseManualTime()
        ->Iterations(6)
        ->Unit(benchmark::kMicrosecond);
  }
  return true;
}();

}  // namespace
}  // namespace hadal::bench
