// Flash attention on CUDA: which kernels run, and the memory they share.
#include "kernels/cuda/attention_statistics.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/flash_attention_paths.h"

namespace hadal::kernels::cuda {
namespace {

void forward(Stream& stream, const FlashAttentionForward& args) { general_forward(native(stream), args); }

void backward(Stream& stream, const FlashAttentionBackward& args) {
  const Tensor statistics = row_statistics(native(stream), stream.device(), args);
  const bool shared = args.k_shared.defined();
  const std::int64_t shared_width = shared ? args.k_shared.width : 0;
  Tensor shared_sums = Tensor::empty({args.k.heads, args.k.tokens, shared_width}, DType::kF32, stream.device());
  general_backward(native(stream), args, statistics.as<float>(), shared_sums.as<float>());
  if (shared) {
    sum_shared_key(native(stream), shared_sums.as<float>(), static_cast<int>(args.k.heads), args.d_k_shared, args.add_to_keys);
  }
}

const RegisterCuda<FlashAttentionForward> registered_forward{forward};
const RegisterCuda<FlashAttentionBackward> registered_backward{backward};

}  // namespace
}  // namespace hadal::kernels::cuda
