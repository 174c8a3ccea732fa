// Loads of the experts and the balance losses on the device: see kernels/router.h. Counts are sums of integers, which atomics may add in
// any order. The loss is computed in f64 from f32 scores: a sum per warp over fixed rows, then over the warps in order.
#include <algorithm>

#include "core/copy.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/top_k.cuh"
#include "kernels/router.h"

namespace hadal::kernels::cuda {
namespace {

constexpr int kWarps = 8;  ///< of a block
constexpr int kThreads = kWarps * kWarp;

/// SequenceRows on the device.
struct Rows {
  std::int64_t count, seq, valid_seq, begin;

  __device__ std::int64_t sequence(std::int64_t row) const { return (begin + row) / seq; }
  __device__ bool counts(std::int64_t row) const { return (begin + row) % seq < valid_seq; }
  /// Rows here of sequence b that count: [first_of(b), last_of(b)).
  __device__ std::int64_t here(std::int64_t row) const { return row < 0 ? 0 : row < count ? row : count; }
  __device__ std::int64_t first_of(std::int64_t b) const { return here(b * seq - begin); }
  __device__ std::int64_t last_of(std::int64_t b) const { return here(b * seq - begin + valid_seq); }
};

Rows rows_of(const SequenceRows& rows, std::int64_t count) { return {count, rows.seq, rows.valid_seq, rows.row_begin}; }

__device__ void add_to(std::int64_t* to, int count) { atomicAdd(reinterpret_cast<unsigned long long*>(to), static_cast<unsigned long long>(count)); }

/// Block (x, b): a share of the rows of sequence b. Pairs per expert, and tokens per device of `per_device` experts.
__global__ void __launch_bounds__(kThreads) chosen_kernel(Rows rows, const int* experts, int num_experts, int top_k, int num_devices,
                                                          std::int64_t* counts, std::int64_t* chosen, std::int64_t* sent) {
  extern __shared__ int found[];  // [E + D]
  for (int i = static_cast<int>(threadIdx.x); i < num_experts + num_devices; i += kThreads) found[i] = 0;
  __syncthreads();
  const std::int64_t b = blockIdx.y, end = rows.last_of(b);
  const int per_device = num_devices > 0 ? num_experts / num_devices : 1;
  for (std::int64_t t = rows.first_of(b) + blockIdx.x * kThreads + threadIdx.x; t < end; t += static_cast<std::int64_t>(gridDim.x) * kThreads) {
    const int* const of_token = experts + t * top_k;
    for (int k = 0; k < top_k; ++k) {
      const int e = of_token[k];
      atomicAdd(found + e, 1);
      if (num_devices == 0) continue;
      bool first = true;
      for (int j = 0; j < k; ++j) first = first && of_token[j] / per_device != e / per_device;
      if (first) atomicAdd(found + num_experts + e / per_device, 1);
    }
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < num_experts + num_devices; i += kThreads) {
    if (found[i] == 0) continue;
    if (i < num_experts) {
      add_to(counts + i, found[i]);
      add_to(chosen + b * num_experts + i, found[i]);
    } else {
      add_to(sent + b * num_devices + (i - num_experts), found[i]);
    }
  }
}

/// Block (x, b), a warp per token: pairs by the largest scores.
template <int Parts>
__global__ void __launch_bounds__(kThreads) raw_top_k_kernel(Rows rows, const float* scores, int num_experts, int top_k, std::int64_t* raw) {
  __shared__ int found[Parts * kWarp];
  for (int i = static_cast<int>(threadIdx.x); i < num_experts; i += kThreads) found[i] = 0;
  __syncthreads();
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const std::int64_t b = blockIdx.y, end = rows.last_of(b);
  for (std::int64_t t = rows.first_of(b) + blockIdx.x * kWarps + warp; t < end; t += static_cast<std::int64_t>(gridDim.x) * kWarps) {
    Choices<Parts> choices;
    choices.reset(num_experts);
#pragma unroll
    for (int i = 0; i < Parts; ++i) {
      const int e = i * kWarp + lane;
      choices.key[i] = e < num_experts ? choice_key(scores[t * num_experts + e]) : 0;
    }
    for (int k = 0; k < top_k; ++k) {
      const int e = choices.take_largest();
      if (lane == 0) atomicAdd(found + e, 1);
    }
  }
  __syncthreads();
  for (int e = static_cast<int>(threadIdx.x); e < num_experts; e += kThreads) {
    if (found[e] != 0) add_to(raw + b * num_experts + e, found[e]);
  }
}

void balance_counts(Stream& stream, const BalanceCounts& args) {
  const std::int64_t tokens = args.scores.shape[0], num_experts = args.scores.shape[1], batch = args.rows.batch;
  const std::int64_t num_devices = args.sent.empty() ? 0 : args.sent.shape[1];
  fill_zero(stream, args.chosen);
  if (!args.raw_top_k.empty()) fill_zero(stream, args.raw_top_k);
  if (num_devices > 0) fill_zero(stream, args.sent);
  if (tokens == 0) return;
  HADAL_CHECK(batch <= 65535, "{} sequences in one call", batch);
  const Rows rows = rows_of(args.rows, tokens);
  const auto top_k = static_cast<int>(args.options.top_k);
  const std::int64_t most_blocks = std::max<std::int64_t>(1, 4 * num_multiprocessors(stream.device().index) / batch);
  const auto grid = [&](std::int64_t rows_of_block) {
    const std::int64_t wanted = (std::min(args.rows.seq, tokens) + rows_of_block - 1) / rows_of_block;
    return dim3(static_cast<unsigned>(std::min(wanted, most_blocks)), static_cast<unsigned>(batch));
  };
  const std::size_t shared_bytes = static_cast<std::size_t>(num_experts + num_devices) * sizeof(int);
  allow_shared_memory(chosen_kernel, shared_bytes, BalanceCounts::kName);
  chosen_kernel<<<grid(kThreads), kThreads, shared_bytes, native(stream)>>>(
      rows, args.experts.as<std::int32_t>(), static_cast<int>(num_experts), top_k, static_cast<int>(num_devices), args.counts.as<std::int64_t>(),
      args.chosen.as<std::int64_t>(), num_devices > 0 ? args.sent.as<std::int64_t>() : nullptr);
  check_launch(BalanceCounts::kName);
  if (args.raw_top_k.empty()) return;
  visit_parts(num_experts, [&]<int Parts>() {
    raw_top_k_kernel<Parts><<<grid(kWarps), kThreads, 0, native(stream)>>>(rows, args.scores.as<float>(), static_cast<int>(num_experts), top_k,
                                                                           args.raw_top_k.as<std::int64_t>());
  });
  check_launch(BalanceCounts::kName);
}

/// The factors of BalanceLoss that stay the same over a call.
struct LossTerms {
  int num_experts, num_devices;
  double sequence_alpha, expert_alpha, device_alpha, communication_alpha;
  double to_fraction, to_share;
  double of_token;  ///< scale / tokens
};

/// c [B, E] of the header, a block per sequence.
__global__ void coefficient_kernel(LossTerms terms, const std::int64_t* chosen, const std::int64_t* raw, const std::int64_t* sent, double* c) {
  const std::int64_t b = blockIdx.x;
  const std::int64_t* const of_sequence = chosen + b * terms.num_experts;
  for (int e = static_cast<int>(threadIdx.x); e < terms.num_experts; e += static_cast<int>(blockDim.x)) {
    double sum = terms.expert_alpha * terms.to_fraction * static_cast<double>(of_sequence[e]);
    if (raw != nullptr) sum += terms.sequence_alpha * terms.to_fraction * static_cast<double>(raw[b * terms.num_experts + e]);
    if (sent != nullptr) {
      const int per_device = terms.num_experts / terms.num_devices, device = e / per_device;
      double load = 0;
      for (int other = device * per_device; other < (device + 1) * per_device; ++other)
        load += terms.to_fraction * static_cast<double>(of_sequence[other]);
      sum += terms.device_alpha * load / per_device +
             terms.communication_alpha * terms.to_share * static_cast<double>(sent[b * terms.num_devices + device]);
    }
    c[b * terms.num_experts + e] = sum;
  }
}

/// A warp per row; the loss of the rows of each warp goes to `losses`.
__global__ void __launch_bounds__(kThreads)
    loss_kernel(LossTerms terms, Rows rows, const float* scores, const double* c, float* d_scores, double* losses) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const std::int64_t warp = static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  double loss = 0;
  for (std::int64_t t = warp; t < rows.count; t += static_cast<std::int64_t>(gridDim.x) * kWarps) {
    const float* const s = scores + t * terms.num_experts;
    float* const d = d_scores + t * terms.num_experts;
    if (!rows.counts(t)) {
      for (int e = lane; e < terms.num_experts; e += kWarp) d[e] = 0;
      continue;
    }
    const double* const of_sequence = c + rows.sequence(t) * terms.num_experts;
    double sum = 0, mean = 0;
    for (int e = lane; e < terms.num_experts; e += kWarp) {
      const auto score = static_cast<double>(s[e]);
      sum += score;
      mean += of_sequence[e] * score;
    }
    sum = warp_sum(sum);
    mean = warp_sum(mean) / sum;
    loss += terms.of_token * mean;
    const double factor = terms.of_token / sum;
    for (int e = lane; e < terms.num_experts; e += kWarp) d[e] = static_cast<float>(factor * (of_sequence[e] - mean));
  }
  if (lane == 0) losses[warp] = loss;
}

__global__ void __launch_bounds__(kThreads) add_losses_kernel(const double* losses, int count, double* loss) {
  double sum = 0;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) sum += losses[i];
  sum = block_sum<kThreads>(sum);
  if (threadIdx.x == 0) *loss += sum;
}

void balance_loss(Stream& stream, const BalanceLoss& args) {
  const std::int64_t tokens = args.scores.shape[0], num_experts = args.scores.shape[1], batch = args.rows.batch;
  if (tokens == 0) return;
  const bool by_device = args.device_alpha != 0 || args.communication_alpha != 0;
  const auto whole_tokens = static_cast<double>(args.tokens);
  LossTerms terms{};
  terms.num_experts = static_cast<int>(num_experts);
  terms.num_devices = by_device ? static_cast<int>(args.sent.shape[1]) : 1;
  terms.sequence_alpha = args.sequence_alpha;
  terms.expert_alpha = args.expert_alpha;
  terms.device_alpha = args.device_alpha;
  terms.communication_alpha = args.communication_alpha;
  terms.to_fraction = static_cast<double>(num_experts) / (static_cast<double>(args.options.top_k) * whole_tokens);
  terms.to_share = static_cast<double>(terms.num_devices) / (static_cast<double>(args.options.topk_groups) * whole_tokens);
  terms.of_token = args.scale / whole_tokens;

  const std::int64_t blocks = std::min<std::int64_t>((tokens + kWarps - 1) / kWarps, 8 * num_multiprocessors(stream.device().index));
  Tensor c = Tensor::empty({batch, num_experts}, DType::kF64, stream.device());
  Tensor losses = Tensor::empty({blocks * kWarps}, DType::kF64, stream.device());
  coefficient_kernel<<<static_cast<unsigned>(batch), kThreads, 0, native(stream)>>>(
      terms, args.chosen.as<std::int64_t>(), args.sequence_alpha != 0 ? args.raw_top_k.as<std::int64_t>() : nullptr,
      by_device ? args.sent.as<std::int64_t>() : nullptr, c.as<double>());
  check_launch(BalanceLoss::kName);
  loss_kernel<<<static_cast<unsigned>(blocks), kThreads, 0, native(stream)>>>(terms, rows_of(args.rows, tokens), args.scores.as<float>(),
                                                                              c.as<double>(), args.d_scores.as<float>(), losses.as<double>());
  check_launch(BalanceLoss::kName);
  add_losses_kernel<<<1, kThreads, 0, native(stream)>>>(losses.as<double>(), static_cast<int>(losses.numel()), args.loss.as<double>());
  check_launch(BalanceLoss::kName);
}

const RegisterCuda<BalanceCounts> registered_counts{balance_counts};
const RegisterCuda<BalanceLoss> registered_loss{balance_loss};

}  // namespace
}  // namespace hadal::kernels::cuda
