// Linear + cross-entropy with both gradients: three products, of which the rate is counted; the memory it takes beside its
// arguments.
#include <fmt/core.h>

#include <string>

#include "gpu_bench.h"
#include "kernels/linear_cross_entropy.h"

namespace hadal::bench {
namespace {

void at_size(Table& table, std::int64_t tokens, std::int64_t width, std::int64_t vocabulary) {
  Stream& stream = table.stream();
  const Tensor h = random_tensor(stream, {tokens, width}, DType::kBf16, 1),
               w = random_tensor(stream, {vocabulary, width}, DType::kBf16, 2, 0.02);
  Tensor drawn = Tensor::empty({tokens}, DType::kI32);
  for (std::int64_t t = 0; t < tokens; ++t) drawn.as<std::int32_t>()[t] = static_cast<std::int32_t>(t * 7919 % vocabulary);
  const Tensor targets = to_device(stream, drawn, kGpu);
  Tensor loss = Tensor::zeros({1}, DType::kF64, kGpu), token_loss = Tensor::zeros({tokens}, DType::kF32, kGpu);
  Tensor d_h = Tensor::zeros({tokens, width}, DType::kBf16, kGpu), d_w = Tensor::zeros({vocabulary, width}, DType::kF32, kGpu);
  kernels::LinearCrossEntropy op{.h = h,
                                 .w = w,
                                 .targets = targets,
                                 .loss = loss,
                                 .token_loss = token_loss,
                                 .scale = 1.0 / static_cast<double>(tokens),
                                 .d_h = d_h,
                                 .d_w = d_w};
  const std::size_t live = memory_stats(kGpu).live_bytes;
  reset_peak(kGpu);
  const auto body = [&] { run(stream, op); };
  body();
  const std::size_t extra = memory_stats(kGpu).peak_bytes - live;
  const std::string shape = fmt::format("{}x{} v{}", tokens, width, vocabulary);
  const double products = 3 * 2.0 * static_cast<double>(tokens) * static_cast<double>(width) * static_cast<double>(vocabulary);
  table.add_flops("linear_cross_entropy", shape, time_ms(stream, body), products);
  op.add_to_d_w = false;  // the first micro-batch of a step, and what an autograd engine does
  table.add_flops("linear_cross_entropy (overwritten)", shape, time_ms(stream, body), products);
  fmt::print("linear_cross_entropy {}: {} MiB beside its arguments\n", shape, extra >> 20);
}

const RegisterBench registered{"linear_cross_entropy", [](Table& table) {
                                 at_size(table, 4096, 2048, 102400);
                                 at_size(table, 4096, 7168, 129280);
                               }};

}  // namespace
}  // namespace hadal::bench
