// Gated pooling of NSA blocks. A thread owns a channel; neighbouring threads own neighbouring channels, so rows are read whole. The
// backward pass first finds each block's log-sum-exp and output, then goes token by token (each lies in a few blocks), and sums the
// positions' gradients over runs of blocks: everything is written once, in a fixed order.
#include <algorithm>

#include "kernels/cuda/check.h"
#include "kernels/cuda/nsa_views.cuh"
#include "kernels/cuda/visit.h"
#include "kernels/nsa.h"

namespace hadal::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr std::int64_t kBlocksOfPartial = 64;  // blocks of one partial sum of d_position, times as many as keep them few
constexpr std::int64_t kMaxPartials = 256;

struct Sizes {
  std::int64_t batch, tokens, blocks;  ///< of one sequence
  int groups, width, length, stride;
};

// Where a flat index lies in [rows, groups, width].
struct Place {
  std::int64_t row;
  int group, channel;

  __device__ Place(const Sizes& sizes, std::int64_t index)
      : row(index / sizes.width / sizes.groups),
        group(static_cast<int>(index / sizes.width % sizes.groups)),
        channel(static_cast<int>(index % sizes.width)) {}
};

template <class T>
struct Inputs {
  Sizes sizes;
  HeadRows<const T> x, logits;
  const float* position;

  __device__ float logit(std::int64_t token, const Place& at, int j) const {
    return to_float(logits.at(token, at.group)[at.channel]) + position[static_cast<std::int64_t>(j) * sizes.width + at.channel];
  }
  __device__ float value(std::int64_t token, const Place& at) const { return to_float(x.at(token, at.group)[at.channel]); }
};

struct Pooled {
  float y, lse;
};

template <class T>
__device__ Pooled pool(const Inputs<T>& in, const Place& at) {
  const std::int64_t token = at.row / in.sizes.blocks * in.sizes.tokens + at.row % in.sizes.blocks * in.sizes.stride;
  float largest = -INFINITY;
#pragma unroll 8
  for (int j = 0; j < in.sizes.length; ++j) largest = fmaxf(largest, in.logit(token + j, at, j));
  float sum = 0, y = 0;
#pragma unroll 8
  for (int j = 0; j < in.sizes.length; ++j) {
    const float e = exp2f((in.logit(token + j, at, j) - largest) * kLog2E);
    sum += e;
    y += e * in.value(token + j, at);
  }
  return {y / sum, largest + logf(sum)};
}

template <class T>
__global__ void __launch_bounds__(kThreads) forward_kernel(Inputs<T> in, HeadRows<T> y) {
  const std::int64_t index = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= in.sizes.batch * in.sizes.blocks * in.sizes.groups * in.sizes.width) return;
  const Place at(in.sizes, index);
  y.at(at.row, at.group)[at.channel] = from_float<T>(pool(in, at).y);
}

// stats [2, B*Nc, G, w]: lse, then y.
template <class T>
__global__ void __launch_bounds__(kThreads) stats_kernel(Inputs<T> in, float* stats) {
  const std::int64_t index = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const std::int64_t count = in.sizes.batch * in.sizes.blocks * in.sizes.groups * in.sizes.width;
  if (index >= count) return;
  const Pooled pooled = pool(in, Place(in.sizes, index));
  stats[index] = pooled.lse;
  stats[count + index] = pooled.y;
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    token_kernel(Inputs<T> in, const float* stats, HeadRows<const T> d_y, HeadRows<T> d_x, HeadRows<T> d_logits, bool add_to_x) {
  const Sizes& sizes = in.sizes;
  const std::int64_t index = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= sizes.batch * sizes.tokens * sizes.groups * sizes.width) return;
  const Place at(sizes, index);
  const std::int64_t b = at.row / sizes.tokens, t = at.row % sizes.tokens, row_size = static_cast<std::int64_t>(sizes.groups) * sizes.width;
  const std::int64_t count = sizes.batch * sizes.blocks * row_size;
  const float x = in.value(at.row, at);
  float d_value = 0, d_logit = 0;
  const std::int64_t first = t < sizes.length ? 0 : (t - sizes.length) / sizes.stride + 1;
  for (std::int64_t i = first; i < sizes.blocks && i * sizes.stride <= t; ++i) {
    const std::int64_t block = (b * sizes.blocks + i) * row_size + index % row_size;
    const float alpha = exp2f((in.logit(at.row, at, static_cast<int>(t - i * sizes.stride)) - stats[block]) * kLog2E);
    const float weighted = alpha * to_float(d_y.at(b * sizes.blocks + i, at.group)[at.channel]);
    d_value += weighted;
    d_logit += weighted * (x - stats[count + block]);
  }
  T* const to = d_x.at(at.row, at.group) + at.channel;
  *to = from_float<T>(add_to_x ? to_float(*to) + d_value : d_value);
  d_logits.at(at.row, at.group)[at.channel] = from_float<T>(d_logit);
}

// partial [runs, l, w]: run r sums (block, group) pairs [r * pairs, (r + 1) * pairs) of all sequences.
template <class T>
__global__ void __launch_bounds__(kThreads)
    position_kernel(Inputs<T> in, const float* stats, HeadRows<const T> d_y, std::int64_t pairs, std::int64_t runs, float* partial) {
  const Sizes& sizes = in.sizes;
  const std::int64_t index = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x, size = static_cast<std::int64_t>(sizes.length) * sizes.width;
  if (index >= runs * size) return;
  const std::int64_t all = sizes.batch * sizes.blocks * sizes.groups, begin = index / size * pairs;
  const std::int64_t end = begin + pairs < all ? begin + pairs : all;
  const int j = static_cast<int>(index % size / sizes.width), channel = static_cast<int>(index % sizes.width);
  float sum = 0;
#pragma unroll 4
  for (std::int64_t pair = begin; pair < end; ++pair) {
    const Place at(sizes, pair * sizes.width + channel);
    const std::int64_t token = at.row / sizes.blocks * sizes.tokens + at.row % sizes.blocks * sizes.stride + j, block = pair * sizes.width + channel;
    const float alpha = exp2f((in.logit(token, at, j) - stats[block]) * kLog2E);
    sum += alpha * to_float(d_y.at(at.row, at.group)[channel]) * (in.value(token, at) - stats[all * sizes.width + block]);
  }
  partial[index] = sum;
}

__global__ void __launch_bounds__(kThreads) sum_kernel(const float* partial, std::int64_t runs, std::int64_t size, float* d_position) {
  const std::int64_t index = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (index >= size) return;
  float sum = 0;
#pragma unroll 8
  for (std::int64_t run = 0; run < runs; ++run) sum += partial[run * size + index];
  d_position[index] += sum;
}

template <class T, class Args>
Inputs<T> inputs_of(const Args& args) {
  const std::int64_t tokens = args.x.tokens / args.batch;
  return {{args.batch, tokens, num_compressed(tokens, args.block_length, args.block_stride), static_cast<int>(args.x.heads),
           static_cast<int>(args.x.width), static_cast<int>(args.block_length), static_cast<int>(args.block_stride)},
          rows_of<T>(args.x),
          rows_of<T>(args.logits),
          args.position.template as<float>()};
}

unsigned grid_for(std::int64_t items) { return static_cast<unsigned>((items + kThreads - 1) / kThreads); }

void forward(Stream& stream, const NsaCompressForward& args) {
  if (args.y.tokens * args.y.heads * args.y.width == 0) return;
  visit(args.x.dtype, [&]<class T>() {
    forward_kernel<T><<<grid_for(args.y.tokens * args.y.heads * args.y.width), kThreads, 0, native(stream)>>>(inputs_of<T>(args), rows_of<T>(args.y));
    check_launch(args.kName);
  });
}

void backward(Stream& stream, const NsaCompressBackward& args) {
  const std::int64_t row_size = args.x.heads * args.x.width, size = args.block_length * args.x.width;
  if (args.x.tokens * row_size == 0) return;
  visit(args.x.dtype, [&]<class T>() {
    const Inputs<T> in = inputs_of<T>(args);
    const std::int64_t blocks = in.sizes.batch * in.sizes.blocks, pairs_in_all = blocks * in.sizes.groups;
    const HeadRows<const T> d_y = rows_of<T>(args.d_y);
    const auto queue = native(stream);
    Tensor stats = Tensor::empty({2, blocks, row_size}, DType::kF32, stream.device());
    if (blocks > 0) {
      stats_kernel<T><<<grid_for(blocks * row_size), kThreads, 0, queue>>>(in, stats.as<float>());
      check_launch(args.kName);
    }
    token_kernel<T><<<grid_for(args.x.tokens * row_size), kThreads, 0, queue>>>(in, stats.as<float>(), d_y, rows_of<T>(args.d_x),
                                                                              rows_of<T>(args.d_logits), args.add_to_x);
    check_launch(args.kName);
    if (blocks == 0) return;
    const std::int64_t pairs = std::max(kBlocksOfPartial, (pairs_in_all + kMaxPartials - 1) / kMaxPartials);
    const std::int64_t runs = (pairs_in_all + pairs - 1) / pairs;
    Tensor partial = Tensor::empty({runs, size}, DType::kF32, stream.device());
    position_kernel<T><<<grid_for(runs * size), kThreads, 0, queue>>>(in, stats.as<float>(), d_y, pairs, runs, partial.as<float>());
    check_launch(args.kName);
    sum_kernel<<<grid_for(size), kThreads, 0, queue>>>(partial.as<float>(), runs, size, args.d_position.as<float>());
    check_launch(args.kName);
  });
}

const RegisterCuda<NsaCompressForward> registered_forward{forward};
const RegisterCuda<NsaCompressBackward> registered_backward{backward};

}  // namespace
}  // namespace hadal::kernels::cuda
