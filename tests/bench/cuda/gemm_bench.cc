// Dense products and casts: the two ceilings' own ops, on shapes of the whole-step bench.
#include "gpu_bench.h"
#include "kernels/cast.h"
#include "kernels/gemm.h"
#include "kernels/linear.h"

namespace hadal::bench {
namespace {

void bench_gemm(Table& table) {
  constexpr std::int64_t kSize = 8192;
  Stream& stream = table.stream();
  const Tensor a = random_tensor(stream, {kSize, kSize}, DType::kBf16, 1), b = random_tensor(stream, {kSize, kSize}, DType::kBf16, 2);
  Tensor c = Tensor::empty({kSize, kSize}, DType::kBf16, kGpu);
  table.add_flops("gemm", "8192^3", time_ms(stream, [&] { run(stream, kernels::Gemm{.a = a, .b = b, .c = c, .transpose_b = true}); }), 2.0 * kSize * kSize * kSize);
}

// A dense feed-forward's up projection and its gradients, 16k tokens, the weight's in f32.
void bench_linear(Table& table) {
  constexpr std::int64_t kTokens = 16384, kIn = 2048, kOut = 10944;
  constexpr double kFlops = 2.0 * kTokens * kIn * kOut;
  const char* const shape = "16384x2048x10944";
  Stream& stream = table.stream();
  const Tensor x = random_tensor(stream, {kTokens, kIn}, DType::kBf16, 1), w = random_tensor(stream, {kOut, kIn}, DType::kBf16, 2);
  const Tensor d_y = random_tensor(stream, {kTokens, kOut}, DType::kBf16, 3);
  Tensor y = Tensor::empty({kTokens, kOut}, DType::kBf16, kGpu), d_x = Tensor::empty({kTokens, kIn}, DType::kBf16, kGpu);
  Tensor d_w = Tensor::zeros({kOut, kIn}, DType::kF32, kGpu);
  table.add_flops("linear_forward", shape, time_ms(stream, [&] { kernels::linear_forward(stream, x, w, y); }), kFlops);
  table.add_flops("linear_backward_input", shape, time_ms(stream, [&] { kernels::linear_backward_input(stream, d_y, w, d_x); }), kFlops);
  table.add_flops("linear_backward_weight", shape, time_ms(stream, [&] { kernels::linear_backward_weight(stream, d_y, x, d_w); }), kFlops);
}

void bench_cast(Table& table) {
  constexpr std::int64_t kCount = std::int64_t{256} << 20;
  Stream& stream = table.stream();
  const Tensor x = random_tensor(stream, {kCount}, DType::kF32, 1);
  Tensor y = Tensor::empty({kCount}, DType::kBf16, kGpu);
  table.add_bytes("cast", "f32->bf16 256M", time_turns_ms(stream, 1, [&](int) { run(stream, kernels::Cast{.x = x, .y = y}); }), 6.0 * kCount);
}

const RegisterBench registered_gemm{"gemm", bench_gemm};
const RegisterBench registered_linear{"linear", bench_linear};
const RegisterBench registered_cast{"cast", bench_cast};

}  // namespace
}  // namespace hadal::bench
