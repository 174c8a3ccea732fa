// The weighted sum of token losses on CUDA: one block, each thread over consecutive tokens in f64, then the threads in a fixed order.
#include "kernels/cuda/check.h"
#include "kernels/cuda/device_math.cuh"
#include "kernels/loss_sum.h"
#include "kernels/op.h"

namespace hadal::kernels::cuda {
namespace {

using std::int64_t;

constexpr int kThreads = 1024;

__global__ __launch_bounds__(kThreads) void sum_losses(int64_t tokens, const float* token_loss, const float* loss_weight, double* loss) {
  const int64_t each = (tokens + kThreads - 1) / kThreads;
  const int64_t begin = threadIdx.x * each, end = min(begin + each, tokens);
  double sum = 0;
  for (int64_t t = begin; t < end; ++t) {
    sum += (loss_weight == nullptr ? 1.0 : static_cast<double>(loss_weight[t])) * static_cast<double>(token_loss[t]);
  }
  sum = block_sum<kThreads>(sum);
  if (threadIdx.x == 0) *loss = sum;
}

void loss_sum(Stream& stream, const LossSum& args) {
  HADAL_CHECK(args.token_loss.dtype == DType::kF32, "token_loss {} on cuda", name_of(args.token_loss.dtype));
  sum_losses<<<1, kThreads, 0, native(stream)>>>(args.token_loss.numel(), args.token_loss.as<float>(),
                                                 args.loss_weight.empty() ? nullptr : args.loss_weight.as<float>(), args.loss.as<double>());
  check_launch(LossSum::kName);
}

const RegisterCuda<LossSum> registered{loss_sum};

}  // namespace
}  // namespace hadal::kernels::cuda
