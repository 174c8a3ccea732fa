// Gated pooling of NSA blocks of any length and stride (nsa_compress_tiles.cu has those of 32 tokens, 16 apart). A thread owns a channel;
// neighbouring threads own neighbouring channels, so rows are read whole. The backward pass first finds each block's log-sum-exp and
// output, then goes token by token (each lies in a few blocks), and sums the positions' gradients over runs of blocks: everything is
// written once, in a fixed order.
#include <algorithm>

#include "kernels/cuda/check.h"
#include "kernels/cuda/column_sums.h"
#include "kernels/cuda/nsa_compress_tiles.h"
#include "kernels/cuda/nsa_views.cuh"
#include "kernels/cuda/visit.h"
#include "kernels/nsa.h"

namespace hadal::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr std::int64_t kLeastBlocks = 32, kMaxRuns = 256;  // of one partial sum of d_position; partial sums

struct Sizes {
  std::int64_t batch, tokens, blocks;  ///< of one sequence
  int groups, width, length, stride;
};

// A thread's channel of a row [G, w]: grid (rows, pieces of kThreads channels).
struct Place {
  std::int64_t row;
  int group, channel, in_row;

  __device__ explicit Place(const Sizes& sizes) : Place(sizes, blockIdx.x, static_cast<int>(blockIdx.y * kThreads + threadIdx.x)) {}
  __device__ Place(const Sizes& sizes, std::int64_t of_row, int index)
      : row(of_row), group(index / sizes.width), channel(index % sizes.width), in_row(index) {}
  __device__ bool inside(const Sizes& sizes) const { return in_row < sizes.groups * sizes.width; }
  __device__ std::int64_t flat(const Sizes& sizes) const { return row * sizes.groups * sizes.width + in_row; }
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
  const auto block = static_cast<unsigned>(at.row), blocks = static_cast<unsigned>(in.sizes.blocks);
  const std::int64_t token = block / blocks * in.sizes.tokens + static_cast<std::int64_t>(block % blocks) * in.sizes.stride;
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
  return {y / sum, largest * kLog2E + log2f(sum)};
}

template <class T>
__global__ void __launch_bounds__(kThreads) forward_kernel(Inputs<T> in, HeadRows<T> y) {
  const Place at(in.sizes);
  if (at.inside(in.sizes)) y.at(at.row, at.group)[at.channel] = from_float<T>(pool(in, at).y);
}

// stats [B*Nc, G, w]: base-2 lse and output.
template <class T>
__global__ void __launch_bounds__(kThreads) stats_kernel(Inputs<T> in, float2* stats) {
  const Place at(in.sizes);
  if (!at.inside(in.sizes)) return;
  const Pooled pooled = pool(in, at);
  stats[at.flat(in.sizes)] = make_float2(pooled.lse, pooled.y);
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    token_kernel(Inputs<T> in, const float2* stats, HeadRows<const T> d_y, HeadRows<T> d_x, HeadRows<T> d_logits, bool add_to_x) {
  const Sizes& sizes = in.sizes;
  const Place at(sizes);
  if (!at.inside(sizes)) return;
  const auto row = static_cast<unsigned>(at.row), tokens = static_cast<unsigned>(sizes.tokens);
  const std::int64_t b = row / tokens;
  const int t = static_cast<int>(row % tokens), first = t < sizes.length ? 0 : (t - sizes.length) / sizes.stride + 1;
  const float x = in.value(at.row, at), logit = to_float(in.logits.at(at.row, at.group)[at.channel]);
  float d_value = 0, d_logit = 0;
  for (int i = first; i < sizes.blocks && i * sizes.stride <= t; ++i) {
    const std::int64_t block = b * sizes.blocks + i;
    const float2 stat = stats[block * sizes.groups * sizes.width + at.in_row];
    const float alpha = exp2f((logit + in.position[static_cast<std::int64_t>(t - i * sizes.stride) * sizes.width + at.channel]) * kLog2E - stat.x);
    const float weighted = alpha * to_float(d_y.at(block, at.group)[at.channel]);
    d_value += weighted;
    d_logit += weighted * (x - stat.y);
  }
  T* const to = d_x.at(at.row, at.group) + at.channel;
  *to = from_float<T>(add_to_x ? to_float(*to) + d_value : d_value);
  d_logits.at(at.row, at.group)[at.channel] = from_float<T>(d_logit);
}

// partial [runs, l, w]: run r sums blocks [r * each, (r + 1) * each) of all sequences and their groups. grid (runs * l, pieces of w).
template <class T>
__global__ void __launch_bounds__(kThreads) position_kernel(Inputs<T> in, const float2* stats, HeadRows<const T> d_y, int each, float* partial) {
  const Sizes& sizes = in.sizes;
  const int channel = static_cast<int>(blockIdx.y * kThreads + threadIdx.x), j = static_cast<int>(blockIdx.x) % sizes.length;
  if (channel >= sizes.width) return;
  const int begin = static_cast<int>(blockIdx.x) / sizes.length * each, end = min(begin + each, static_cast<int>(sizes.batch * sizes.blocks));
  const auto blocks = static_cast<unsigned>(sizes.blocks);
  const float position = in.position[static_cast<std::int64_t>(j) * sizes.width + channel];
  float sum = 0;
  for (int group = 0; group < sizes.groups; ++group) {
#pragma unroll 4
    for (int block = begin; block < end; ++block) {
      const auto number = static_cast<unsigned>(block);
      const std::int64_t token = number / blocks * sizes.tokens + static_cast<std::int64_t>(number % blocks) * sizes.stride + j;
      const float2 stat = stats[(static_cast<std::int64_t>(block) * sizes.groups + group) * sizes.width + channel];
      const float alpha = exp2f((to_float(in.logits.at(token, group)[channel]) + position) * kLog2E - stat.x);
      sum += alpha * to_float(d_y.at(block, group)[channel]) * (to_float(in.x.at(token, group)[channel]) - stat.y);
    }
  }
  partial[static_cast<std::int64_t>(blockIdx.x) * sizes.width + channel] = sum;
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

dim3 grid_for(std::int64_t rows, std::int64_t row_size) {
  return {static_cast<unsigned>(rows), static_cast<unsigned>((row_size + kThreads - 1) / kThreads)};
}

void forward(Stream& stream, const NsaCompressForward& args) {
  const std::int64_t row_size = args.x.heads * args.x.width;
  if (args.y.tokens * row_size == 0) return;
  if (fits_tiles(args)) return compress_by_tiles(stream, args);
  visit(args.x.dtype, [&]<class T>() {
    forward_kernel<T><<<grid_for(args.y.tokens, row_size), kThreads, 0, native(stream)>>>(inputs_of<T>(args), rows_of<T>(args.y));
    check_launch(args.kName);
  });
}

void backward(Stream& stream, const NsaCompressBackward& args) {
  const char* const op = args.kName;
  const std::int64_t row_size = args.x.heads * args.x.width, size = args.block_length * args.x.width;
  if (args.x.tokens * row_size == 0) return;
  if (fits_tiles(args)) return compress_by_tiles(stream, args);
  visit(args.x.dtype, [&]<class T>() {
    const Inputs<T> in = inputs_of<T>(args);
    const std::int64_t blocks = in.sizes.batch * in.sizes.blocks;
    const HeadRows<const T> d_y = rows_of<T>(args.d_y);
    const auto queue = native(stream);
    Tensor stats = Tensor::empty({blocks, row_size, 2}, DType::kF32, stream.device());
    auto* const stat = reinterpret_cast<float2*>(stats.as<float>());
    if (blocks > 0) {
      stats_kernel<T><<<grid_for(blocks, row_size), kThreads, 0, queue>>>(in, stat);
      check_launch(op);
    }
    token_kernel<T>
        <<<grid_for(args.x.tokens, row_size), kThreads, 0, queue>>>(in, stat, d_y, rows_of<T>(args.d_x), rows_of<T>(args.d_logits), args.add_to_x);
    check_launch(op);
    if (blocks == 0) return;
    const std::int64_t each = std::max(kLeastBlocks, (blocks + kMaxRuns - 1) / kMaxRuns), runs = (blocks + each - 1) / each;
    Tensor partial = Tensor::empty({runs, size}, DType::kF32, stream.device());
    position_kernel<T>
        <<<grid_for(runs * args.block_length, args.x.width), kThreads, 0, queue>>>(in, stat, d_y, static_cast<int>(each), partial.as<float>());
    check_launch(op);
    add_column_sums(stream, op, partial.as<float>(), runs, size, args.d_position.as<float>());
  });
}

const RegisterCuda<NsaCompressForward> registered_forward{forward};
const RegisterCuda<NsaCompressBackward> registered_backward{backward};

}  // namespace
}  // namespace hadal::kernels::cuda
