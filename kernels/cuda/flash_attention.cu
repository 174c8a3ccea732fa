// Flash attention on CUDA: which kernels run, and the memory they share.
#include "kernels/cuda/attention_statistics.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/cudnn_attention.h"
#include "kernels/cuda/flash_attention_paths.h"
#include "kernels/cuda/heads_map.h"

namespace hadal::kernels::cuda {
namespace {

/// Pairs of bf16 can be stored.
bool can_store_pairs(const ConstHeads& x) {
  return reinterpret_cast<std::uintptr_t>(x.data) % 4 == 0 && x.token_stride % 2 == 0 && (x.heads == 1 || x.head_stride % 2 == 0);
}

template <class Args>
bool inputs_fit(const Args& args) {
  using hopper::can_map;
  return can_map(args.q) && can_map(args.k) && can_map(args.v) && args.k.width <= 128 && args.v.width <= 128 && args.scale > 0 &&
         (!args.k_shared.defined() || (can_map(args.k_shared) && args.k_shared.width <= 64));
}

void forward(Stream& stream, const FlashAttentionForward& args) {
  if (fits_hopper(args)) {
    hopper_forward(stream, args);
  } else {
    general_forward(stream, args);
  }
}

void backward(Stream& stream, const FlashAttentionBackward& args) {
  const Tensor statistics = row_statistics(native(stream), stream.device(), args);
  const bool shared = args.k_shared.defined();
  const std::int64_t shared_width = shared ? args.k_shared.width : 0;
  Tensor shared_sums = Tensor::empty({args.k.heads, args.k.tokens, shared_width}, DType::kF32, stream.device());
  if (fits_hopper(args)) {
    hopper_backward_queries(stream, args, statistics.as<float>());
    hopper_backward_keys(stream, args, statistics.as<float>(), shared_sums.as<float>());
  } else {
    general_backward(native(stream), args, statistics.as<float>(), shared_sums.as<float>());
  }
  if (shared) {
    sum_shared_key(native(stream), shared_sums.as<float>(), static_cast<int>(args.k.heads), args.d_k_shared, args.add_to_keys);
  }
}

/// cuDNN's, where the user prefers speed to the same bits in every run.
void chosen_backward(Stream& stream, const FlashAttentionBackward& args) {
  if (cudnn_attention == nullptr || !cudnn_attention->backward(stream, args)) backward(stream, args);
}

const RegisterCuda<FlashAttentionForward> registered_forward{forward};
const RegisterCuda<FlashAttentionBackward> registered_backward{chosen_backward};

}  // namespace

bool fits_hopper(const FlashAttentionForward& args) { return inputs_fit(args) && hopper::can_map(args.o); }

bool fits_hopper(const FlashAttentionBackward& args) {
  return inputs_fit(args) && hopper::can_map(args.d_o) && can_store_pairs(args.d_q) && can_store_pairs(args.d_k) && can_store_pairs(args.d_v);
}

}  // namespace hadal::kernels::cuda
