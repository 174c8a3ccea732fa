// RMSNorm, bound by memory: a row is read once and held in the registers of the threads that share it, a warp for narrow rows, a
// block of 128 to 1024 threads for wide ones, up to two pieces of 16 bytes a thread. Rows that are not aligned, or wider than that,
// are read element by element, twice.
//
// Backward gives each block a chunk of consecutive rows, so that the gain's gradient too stays in registers until the chunk ends;
// chunks' sums lie in a workspace and are added in order by a second kernel. Chunks depend on T and d alone.
#include "kernels/rms_norm.h"

#include <algorithm>

#include "kernels/cuda/check.h"
#include "kernels/cuda/floats.cuh"
#include "kernels/cuda/visit.h"

namespace hadal::kernels::cuda {
namespace {

using std::int64_t;

constexpr int kBlock = 256;
constexpr int kPieces = 2;  ///< of a thread at most
// Backward's chunks of rows are at most the blocks that 132 multiprocessors (a Hopper's) hold at the same time, on any device.
constexpr int64_t kMultiprocessors = 132;

struct Rows {
  int64_t rows;
  int width;
  int64_t x_stride, d_x_stride;
};

/// Threads of a block in which `RowThreads` share a row.
template <int RowThreads>
constexpr int kThreads = RowThreads == kWarp || RowThreads == 0 ? kBlock : RowThreads;
/// Blocks of backward on a multiprocessor: 1024 threads of 64 registers, fewer threads where warps keep rows apart.
template <int RowThreads>
constexpr int kResident = RowThreads == kWarp ? 3 : 1024 / kThreads<RowThreads>;

template <int RowThreads>
__device__ float row_sum(float x) {
  if constexpr (RowThreads == kWarp) {
    return warp_sum(x);
  } else {
    return block_sum<RowThreads>(x);
  }
}

template <class T, int RowThreads>
__global__ __launch_bounds__(kThreads<RowThreads>) void forward_held(Rows shape, const T* x, const float* gain, float eps, T* y, float* inverse_rms) {
  constexpr int kRows = kThreads<RowThreads> / RowThreads, kCount = kPiece<T>;
  const int lane = static_cast<int>(threadIdx.x) % RowThreads;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kRows + threadIdx.x / RowThreads;
  if (row >= shape.rows) return;  // a whole warp: blocks with several rows have no barrier
  const T* const from = x + row * shape.x_stride;
  Pack<T, kCount> held[kPieces];
#pragma unroll
  for (int p = 0; p < kPieces; ++p) {
    const int at = (p * RowThreads + lane) * kCount;
    if (at < shape.width) held[p] = load_pack<kCount>(from + at);
  }
  float sum = 0;
#pragma unroll
  for (int p = 0; p < kPieces; ++p) {
    if ((p * RowThreads + lane) * kCount >= shape.width) continue;
    const Floats<kCount> values = floats_of(held[p]);
#pragma unroll
    for (int i = 0; i < kCount; ++i) sum += values.at[i] * values.at[i];
  }
  const float rho = 1.0f / sqrtf(row_sum<RowThreads>(sum) / static_cast<float>(shape.width) + eps);
  if (lane == 0) inverse_rms[row] = rho;
#pragma unroll
  for (int p = 0; p < kPieces; ++p) {
    const int at = (p * RowThreads + lane) * kCount;
    if (at >= shape.width) continue;
    Floats<kCount> values = floats_of(held[p]);
    const Floats<kCount> gains = load_floats<kCount>(gain + at);
#pragma unroll
    for (int i = 0; i < kCount; ++i) values.at[i] = gains.at[i] * (values.at[i] * rho);
    store_floats(y + row * shape.width + at, values);
  }
}

template <class T>
__global__ __launch_bounds__(kBlock) void forward_any(Rows shape, const T* x, const float* gain, float eps, T* y, float* inverse_rms) {
  const int64_t row = blockIdx.x;
  const T* const from = x + row * shape.x_stride;
  float sum = 0;
  for (int i = static_cast<int>(threadIdx.x); i < shape.width; i += kBlock) {
    const float value = to_float(from[i]);
    sum += value * value;
  }
  const float rho = 1.0f / sqrtf(block_sum<kBlock>(sum) / static_cast<float>(shape.width) + eps);
  if (threadIdx.x == 0) inverse_rms[row] = rho;
  T* const to = y + row * shape.width;
  for (int i = static_cast<int>(threadIdx.x); i < shape.width; i += kBlock) to[i] = from_float<T>(gain[i] * (to_float(from[i]) * rho));
}

template <class T>
struct BackwardPointers {
  const T* x;
  const float* gain;
  const float* inverse_rms;
  const T* d_y;
  const T* d_residual;
  T* d_x;
  float* partials;  ///< [chunks, d]
};

template <class T, int RowThreads>
__global__ __launch_bounds__(kThreads<RowThreads>, kResident<RowThreads>) void backward_held(Rows shape, BackwardPointers<T> p,
                                                                                             int64_t chunk_rows) {
  constexpr int kRows = kThreads<RowThreads> / RowThreads, kCount = kPiece<T>;
  const int lane = static_cast<int>(threadIdx.x) % RowThreads, mine = static_cast<int>(threadIdx.x) / RowThreads;
  const int64_t begin = blockIdx.x * chunk_rows, end = min(begin + chunk_rows, shape.rows);
  Floats<kCount> d_gain[kPieces] = {};
  for (int64_t row = begin + mine; row < end; row += kRows) {
    Pack<T, kCount> xs[kPieces], d_ys[kPieces];
#pragma unroll
    for (int k = 0; k < kPieces; ++k) {
      const int at = (k * RowThreads + lane) * kCount;
      if (at >= shape.width) continue;
      xs[k] = load_pack<kCount>(p.x + row * shape.x_stride + at);
      d_ys[k] = load_pack<kCount>(p.d_y + row * shape.width + at);
    }
    const float rho = p.inverse_rms[row];
    float sum = 0;
#pragma unroll
    for (int k = 0; k < kPieces; ++k) {
      const int at = (k * RowThreads + lane) * kCount;
      if (at >= shape.width) continue;
      const Floats<kCount> x = floats_of(xs[k]), d_y = floats_of(d_ys[k]), gain = load_floats<kCount>(p.gain + at);
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        const float product = d_y.at[i] * x.at[i];
        sum += product * gain.at[i];
        d_gain[k].at[i] += product * rho;
      }
    }
    const float pull = rho * rho * rho * row_sum<RowThreads>(sum) / static_cast<float>(shape.width);
#pragma unroll
    for (int k = 0; k < kPieces; ++k) {
      const int at = (k * RowThreads + lane) * kCount;
      if (at >= shape.width) continue;
      const Floats<kCount> x = floats_of(xs[k]), d_y = floats_of(d_ys[k]), gain = load_floats<kCount>(p.gain + at);
      Floats<kCount> d_x{};
      if (p.d_residual != nullptr) d_x = load_floats<kCount>(p.d_residual + row * shape.width + at);
#pragma unroll
      for (int i = 0; i < kCount; ++i) d_x.at[i] += gain.at[i] * d_y.at[i] * rho - x.at[i] * pull;
      store_floats(p.d_x + row * shape.d_x_stride + at, d_x);
    }
  }
  float* const partial = p.partials + blockIdx.x * static_cast<int64_t>(shape.width);
  if constexpr (kRows == 1) {
#pragma unroll
    for (int k = 0; k < kPieces; ++k) {
      const int at = (k * RowThreads + lane) * kCount;
      if (at < shape.width) store_floats(partial + at, d_gain[k]);
    }
  } else {
    __shared__ __align__(16) float sums[kRows][RowThreads * kPieces * kCount];
#pragma unroll
    for (int k = 0; k < kPieces; ++k) store_floats(&sums[mine][(k * RowThreads + lane) * kCount], d_gain[k]);
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < shape.width; i += kThreads<RowThreads>) {
      float sum = sums[0][i];
#pragma unroll
      for (int r = 1; r < kRows; ++r) sum += sums[r][i];
      partial[i] = sum;
    }
  }
}

template <class T>
__global__ __launch_bounds__(kBlock) void backward_any(Rows shape, BackwardPointers<T> p, int64_t chunk_rows) {
  const int64_t begin = blockIdx.x * chunk_rows, end = min(begin + chunk_rows, shape.rows);
  float* const partial = p.partials + blockIdx.x * static_cast<int64_t>(shape.width);
  for (int64_t row = begin; row < end; ++row) {
    const T* const x = p.x + row * shape.x_stride;
    const T* const d_y = p.d_y + row * shape.width;
    const T* const residual = p.d_residual == nullptr ? nullptr : p.d_residual + row * shape.width;
    T* const d_x = p.d_x + row * shape.d_x_stride;
    const float rho = p.inverse_rms[row];
    float sum = 0;
    for (int i = static_cast<int>(threadIdx.x); i < shape.width; i += kBlock) {
      const float product = to_float(d_y[i]) * to_float(x[i]);
      sum += product * p.gain[i];
      partial[i] = (row == begin ? 0.0f : partial[i]) + product * rho;
    }
    const float pull = rho * rho * rho * block_sum<kBlock>(sum) / static_cast<float>(shape.width);
    for (int i = static_cast<int>(threadIdx.x); i < shape.width; i += kBlock) {
      const float rest = residual == nullptr ? 0.0f : to_float(residual[i]);
      d_x[i] = from_float<T>(rest + (p.gain[i] * to_float(d_y[i]) * rho - to_float(x[i]) * pull));
    }
  }
}

constexpr int kColumns = 32, kGroups = 16;

/// d_gain += partials summed over chunks: each group of a column adds a range of chunks, then the groups are added in order.
__global__ __launch_bounds__(kColumns * kGroups) void add_partials(int64_t chunks, int width, const float* partials, float* d_gain) {
  __shared__ float sums[kGroups][kColumns];
  const int column = static_cast<int>(blockIdx.x) * kColumns + static_cast<int>(threadIdx.x);
  const int64_t each = (chunks + kGroups - 1) / kGroups;
  const int64_t begin = threadIdx.y * each, end = min(begin + each, chunks);
  float sum = 0;
  if (column < width) {
#pragma unroll 8
    for (int64_t chunk = begin; chunk < end; ++chunk) sum += partials[chunk * width + column];
  }
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y != 0 || column >= width) return;
#pragma unroll
  for (int group = 1; group < kGroups; ++group) sum += sums[group][threadIdx.x];
  d_gain[column] += sum;
}

/// body.template operator()<RowThreads>() for the fewest threads whose registers hold a row, 0 where none do.
template <class T, class Body>
void visit_row_threads(int64_t width, bool aligned, Body&& body) {
  const int64_t per_thread = int64_t{kPieces} * kPiece<T>;
  if (!aligned || width > 1024 * per_thread) {
    body.template operator()<0>();
  } else if (width > 512 * per_thread) {
    body.template operator()<1024>();
  } else if (width > 256 * per_thread) {
    body.template operator()<512>();
  } else if (width > 128 * per_thread) {
    body.template operator()<256>();
  } else if (width > kWarp * per_thread) {
    body.template operator()<128>();
  } else {
    body.template operator()<kWarp>();
  }
}

Rows rows_of(int64_t rows, int64_t width, int64_t x_stride, int64_t d_x_stride) {
  HADAL_CHECK(width < (int64_t{1} << 30) && rows < (int64_t{1} << 31), "{} rows of {}", rows, width);
  return {rows, static_cast<int>(width), x_stride == 0 ? width : x_stride, d_x_stride == 0 ? width : d_x_stride};
}

void rms_norm_forward(Stream& stream, const RmsNormForward& args) {
  const Rows shape = rows_of(args.inverse_rms.numel(), args.gain.numel(), args.x_stride, 0);
  if (shape.rows == 0 || shape.width == 0) return;
  visit(args.y.dtype, [&]<class T>() {
    const auto* x = static_cast<const T*>(args.x.data);
    auto* y = static_cast<T*>(args.y.data);
    const float* gain = args.gain.as<float>();
    const auto eps = static_cast<float>(args.eps);
    const bool aligned = aligned16(x, shape.x_stride) && aligned16(y, shape.width) && aligned16(gain, 4);
    visit_row_threads<T>(shape.width, aligned, [&]<int RowThreads>() {
      if constexpr (RowThreads == 0) {
        forward_any<<<static_cast<unsigned>(shape.rows), kBlock, 0, native(stream)>>>(shape, x, gain, eps, y, args.inverse_rms.as<float>());
      } else {
        constexpr int kRows = kThreads<RowThreads> / RowThreads;
        forward_held<T, RowThreads><<<static_cast<unsigned>((shape.rows + kRows - 1) / kRows), kThreads<RowThreads>, 0, native(stream)>>>(
            shape, x, gain, eps, y, args.inverse_rms.as<float>());
      }
    });
  });
  check_launch(RmsNormForward::kName);
}

void rms_norm_backward(Stream& stream, const RmsNormBackward& args) {
  const Rows shape = rows_of(args.inverse_rms.numel(), args.gain.numel(), args.x_stride, args.d_x_stride);
  if (shape.rows == 0 || shape.width == 0) return;
  visit(args.d_y.dtype, [&]<class T>() {
    BackwardPointers<T> p{static_cast<const T*>(args.x.data), args.gain.as<float>(), args.inverse_rms.as<float>(),
                          static_cast<const T*>(args.d_y.data), nullptr, static_cast<T*>(args.d_x.data), nullptr};
    if (!args.d_residual.empty()) p.d_residual = static_cast<const T*>(args.d_residual.data);
    const bool aligned = aligned16(p.x, shape.x_stride) && aligned16(p.d_y, shape.width) && aligned16(p.d_x, shape.d_x_stride) &&
                         aligned16(p.d_residual, shape.width) && aligned16(p.gain, 4);
    visit_row_threads<T>(shape.width, aligned, [&]<int RowThreads>() {
      const int64_t most = kMultiprocessors * kResident<RowThreads>;
      const int64_t chunk_rows = (shape.rows + most - 1) / most, chunks = (shape.rows + chunk_rows - 1) / chunk_rows;
      Tensor partials = Tensor::empty({chunks, shape.width}, DType::kF32, stream.device());
      p.partials = partials.as<float>();
      if constexpr (RowThreads == 0) {
        backward_any<<<static_cast<unsigned>(chunks), kBlock, 0, native(stream)>>>(shape, p, chunk_rows);
      } else {
        backward_held<T, RowThreads><<<static_cast<unsigned>(chunks), kThreads<RowThreads>, 0, native(stream)>>>(shape, p, chunk_rows);
      }
      add_partials<<<static_cast<unsigned>((shape.width + kColumns - 1) / kColumns), dim3(kColumns, kGroups), 0, native(stream)>>>(
          chunks, shape.width, p.partials, args.d_gain.as<float>());
    });
  });
  check_launch(RmsNormBackward::kName);
}

const RegisterCuda<RmsNormForward> registered_forward{rms_norm_forward};
const RegisterCuda<RmsNormBackward> registered_backward{rms_norm_backward};

}  // namespace
}  // namespace hadal::kernels::cuda
