// SwiGLU on CUDA, bound by memory: a warp goes over a row, a block of 256 threads over a wide one, in pieces of 16 bytes (single
// elements where rows are not aligned). With the router's weights, backward also sums over the row, so it keeps that shape too.
#include "kernels/cuda/swiglu.h"

#include "kernels/cuda/check.h"
#include "kernels/cuda/floats.cuh"
#include "kernels/cuda/swiglu.cuh"
#include "kernels/cuda/visit.h"

namespace hadal::kernels::cuda {
namespace {

using std::int64_t;

constexpr int kBlock = 256;
constexpr int kWarpPieces = 16;  ///< of a lane at most, where a warp has a row

template <class T, int N, int RowThreads>
__global__ __launch_bounds__(kBlock) void forward(int64_t rows, const int64_t* end, int width, const T* gate_up, const float* row_weight, T* h) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * (kBlock / RowThreads) + threadIdx.x / RowThreads;
  if (row >= rows || (end != nullptr && row >= *end)) return;
  const float weight = row_weight == nullptr ? 1.0f : row_weight[row];
  const T* const gate = gate_up + row * 2 * width;
  T* const to = h + row * width;
#pragma unroll 2
  for (int i = static_cast<int>(threadIdx.x) % RowThreads * N; i < width; i += RowThreads * N) {
    const Floats<N> a = load_floats<N>(gate + i), b = load_floats<N>(gate + width + i);
    Floats<N> result;
#pragma unroll
    for (int j = 0; j < N; ++j) result.at[j] = weighted_swiglu<T>(weight, a.at[j], b.at[j]);
    store_floats(to + i, result);
  }
}

/// d_gate_up may be gate_up: a thread reads the elements that it writes, first. sigma (1 + a (1 - sigma)) is the derivative of
/// silu.
template <class T, int N, int RowThreads>
__global__ __launch_bounds__(kBlock) void backward(int64_t rows, int width, const T* gate_up, const float* row_weight,
                                                   const T* d_h, T* d_gate_up, float* d_row_weight) {
  const int lane = static_cast<int>(threadIdx.x) % RowThreads;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * (kBlock / RowThreads) + threadIdx.x / RowThreads;
  if (row >= rows) return;  // a whole warp: a block of several rows has no barrier
  const float weight = row_weight == nullptr ? 1.0f : row_weight[row];
  const T* const gate = gate_up + row * 2 * width;
  const T* const from = d_h + row * width;
  T* const d_gate = d_gate_up + row * 2 * width;
  float sum = 0;
  for (int i = lane * N; i < width; i += RowThreads * N) {
    const Floats<N> a = load_floats<N>(gate + i), b = load_floats<N>(gate + width + i), d = load_floats<N>(from + i);
    Floats<N> d_a, d_b;
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const float sigma = sigmoid<T>(a.at[j]), silu = a.at[j] * sigma;
      sum += d.at[j] * silu * b.at[j];
      d_a.at[j] = weight * d.at[j] * b.at[j] * (sigma * (1.0f + a.at[j] * (1.0f - sigma)));
      d_b.at[j] = weight * d.at[j] * silu;
    }
    store_floats(d_gate + i, d_a);
    store_floats(d_gate + width + i, d_b);
  }
  if (d_row_weight == nullptr) return;
  if constexpr (RowThreads == kWarp) {
    sum = warp_sum(sum);
  } else {
    sum = block_sum<RowThreads>(sum);
  }
  if (lane == 0) d_row_weight[row] = sum;
}

/// body.template operator()<N, RowThreads>() for rows of `width` elements.
template <class T, class Body>
void visit_shape(int64_t width, bool aligned, Body&& body) {
  if (aligned && width <= int64_t{kWarpPieces} * kWarp * kPiece<T>) {
    body.template operator()<kPiece<T>, kWarp>();
  } else if (aligned) {
    body.template operator()<kPiece<T>, kBlock>();
  } else if (width <= int64_t{kWarpPieces} * kWarp) {
    body.template operator()<1, kWarp>();
  } else {
    body.template operator()<1, kBlock>();
  }
}

unsigned blocks_of(int64_t rows, int row_threads) {
  const int64_t of_block = kBlock / row_threads, blocks = (rows + of_block - 1) / of_block;
  HADAL_CHECK(blocks < (int64_t{1} << 31), "{} rows", rows);
  return static_cast<unsigned>(blocks);
}

const float* data_or_null(const ConstView& weight) { return weight.empty() ? nullptr : weight.as<float>(); }

void forward_all(Stream& stream, const SwigluForward& args) { swiglu_forward(stream, args, nullptr); }

void swiglu_backward(Stream& stream, const SwigluBackward& args) {
  if (args.d_h.empty()) return;
  const int64_t rows = args.d_h.shape[0], width = args.d_h.shape[1];
  visit(args.d_h.dtype, [&]<class T>() {
    const auto* gate_up = static_cast<const T*>(args.gate_up.data);
    const auto* d_h = static_cast<const T*>(args.d_h.data);
    auto* d_gate_up = static_cast<T*>(args.d_gate_up.data);
    float* d_row_weight = args.d_row_weight.empty() ? nullptr : args.d_row_weight.as<float>();
    const bool aligned = aligned16(gate_up, width) && aligned16(d_h, width) && aligned16(d_gate_up, width);
    visit_shape<T>(width, aligned, [&]<int N, int RowThreads>() {
      backward<T, N, RowThreads><<<blocks_of(rows, RowThreads), kBlock, 0, native(stream)>>>(
          rows, static_cast<int>(width), gate_up, data_or_null(args.row_weight), d_h, d_gate_up, d_row_weight);
    });
  });
  check_launch(SwigluBackward::kName);
}

const RegisterCuda<SwigluForward> registered_forward{forward_all};
const RegisterCuda<SwigluBackward> registered_backward{swiglu_backward};

}  // namespace

void swiglu_forward(Stream& stream, const SwigluForward& args, const int64_t* end) {
  if (args.h.empty()) return;
  const int64_t rows = args.h.shape[0], width = args.h.shape[1];
  visit(args.h.dtype, [&]<class T>() {
    const auto* gate_up = static_cast<const T*>(args.gate_up.data);
    auto* h = static_cast<T*>(args.h.data);
    visit_shape<T>(width, aligned16(gate_up, width) && aligned16(h, width), [&]<int N, int RowThreads>() {
      forward<T, N, RowThreads><<<blocks_of(rows, RowThreads), kBlock, 0, native(stream)>>>(
          rows, end, static_cast<int>(width), gate_up, data_or_null(args.row_weight), h);
    });
  });
  check_launch(SwigluForward::kName);
}

}  // namespace hadal::kernels::cuda
