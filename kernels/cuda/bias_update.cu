// One block: the experts are few, and the step must not wait for the host.
#include "kernels/bias_update.h"

#include "kernels/cuda/check.h"
#include "kernels/cuda/device_math.cuh"

namespace hadal::kernels::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads) bias_update_kernel(const std::int64_t* counts, int num_experts, float speed,
                                                                const double* norm_squared, float* bias) {
  if (norm_squared != nullptr && !isfinite(*norm_squared)) return;
  long long total = 0;
  for (int e = static_cast<int>(threadIdx.x); e < num_experts; e += kThreads) total += counts[e];
  total = block_sum<kThreads>(total);
  for (int e = static_cast<int>(threadIdx.x); e < num_experts; e += kThreads) {
    const long long scaled = static_cast<long long>(counts[e]) * num_experts;
    if (scaled != total) bias[e] += scaled < total ? speed : -speed;
  }
}

void bias_update(Stream& stream, const BiasUpdate& args) {
  if (args.bias.empty()) return;
  bias_update_kernel<<<1, kThreads, 0, native(stream)>>>(args.counts.as<std::int64_t>(), static_cast<int>(args.counts.numel()),
                                                         static_cast<float>(args.speed),
                                                         args.grad_norm_squared.empty() ? nullptr : args.grad_norm_squared.as<double>(),
                                                         args.bias.as<float>());
  check_launch(BiasUpdate::kName);
}

const RegisterCuda<BiasUpdate> registered{bias_update};

}  // namespace
}  // namespace hadal::kernels::cuda
