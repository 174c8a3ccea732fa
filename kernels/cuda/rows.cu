// Moving rows on the device: a few lanes per row, in units of 16 bytes where rows and pointers allow it. Bound by memory: several units of
// a lane are on their way before the first is used, what is written is not read again here and leaves the cache first.
#include "kernels/rows.h"

#include "kernels/cuda/check.h"
#include "kernels/cuda/row_parts.cuh"
#include "kernels/cuda/visit.h"

namespace hadal::kernels::cuda {
namespace {

constexpr int kThreads = 256;

/// Blocks of kThreads threads, `lanes` (a power of two up to 32) to a row of `units`.
struct RowGrid {
  unsigned blocks;
  dim3 threads;
};

RowGrid grid_for(std::int64_t rows, std::int64_t units) {
  const unsigned lanes = lanes_for(units, kWarp);
  const std::int64_t rows_per_block = kThreads / lanes;
  return {static_cast<unsigned>((rows + rows_per_block - 1) / rows_per_block), dim3(lanes, kThreads / lanes)};
}

__device__ std::int64_t row_of_thread() { return static_cast<std::int64_t>(blockIdx.x) * blockDim.y + threadIdx.y; }

/// Calls body.template operator()<Unit>(units per row) with the widest unit that rows of `row_bytes` at both addresses can be moved in.
template <class Body>
void visit_unit(const void* a, const void* b, std::int64_t row_bytes, Body&& body) {
  const auto bits = reinterpret_cast<std::uintptr_t>(a) | reinterpret_cast<std::uintptr_t>(b) | static_cast<std::uintptr_t>(row_bytes);
  if (bits % 16 == 0) {
    body.template operator()<uint4>(row_bytes / 16);
  } else if (bits % 4 == 0) {
    body.template operator()<std::uint32_t>(row_bytes / 4);
  } else {
    HADAL_CHECK(bits % 2 == 0, "rows of {} bytes", row_bytes);
    body.template operator()<std::uint16_t>(row_bytes / 2);
  }
}

std::int64_t row_bytes_of(const ConstView& x) { return x.shape[1] * static_cast<std::int64_t>(size_of(x.dtype)); }

template <class Unit>
__global__ void __launch_bounds__(kThreads)
    gather_kernel(const Unit* x, std::int64_t num_sources, const int* index, Unit* y, std::int64_t rows, std::int64_t units) {
  constexpr int kAtOnce = 8;
  const std::int64_t row = row_of_thread();
  if (row >= rows) return;
  const int source = index[row];
  if (source >= num_sources) __trap();  // a row that is not there: the caller's mistake must not pass for data
  const Unit* const from = x + source * units;
  Unit* const to = y + row * units;
  const std::int64_t step = blockDim.x;
  for (std::int64_t first = threadIdx.x; first < units; first += kAtOnce * step) {
    Unit part[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) part[i] = source >= 0 && first + i * step < units ? from[first + i * step] : Unit{};
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      if (first + i * step < units) __stcs(to + first + i * step, part[i]);
    }
  }
}

template <class Unit>
__global__ void __launch_bounds__(kThreads)
    spread_kernel(const Unit* x, const int* index, int top_k, Unit* y, std::int64_t tokens, std::int64_t units) {
  constexpr int kAtOnce = 8;
  const std::int64_t t = row_of_thread();
  if (t >= tokens) return;
  const Unit* const from = x + t * units;
  const std::int64_t step = blockDim.x;
  for (std::int64_t first = threadIdx.x; first < units; first += kAtOnce * step) {
    Unit part[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) part[i] = first + i * step < units ? __ldcs(from + first + i * step) : Unit{};
    for (int k = 0; k < top_k; ++k) {
      const int row = index[t * top_k + k];
      if (row < 0) continue;
      Unit* const to = y + row * units;
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        if (first + i * step < units) __stcs(to + first + i * step, part[i]);
      }
    }
  }
}

template <class T, int Width>
__global__ void __launch_bounds__(kThreads)
    combine_kernel(const T* x, const int* index, int top_k, const T* base, T* y, std::int64_t tokens, std::int64_t width) {
  constexpr int kAtOnce = 8;
  const std::int64_t t = row_of_thread();
  if (t >= tokens) return;
  const int* const of_token = index + t * top_k;
  for (std::int64_t column = threadIdx.x * Width; column < width; column += blockDim.x * Width) {
    float sum[Width] = {};
    if (base != nullptr) {
      const auto part = load_part<T, Width>(base + t * width + column);
#pragma unroll
      for (int i = 0; i < Width; ++i) sum[i] = to_float(part.at[i]);
    }
    for (int first = 0; first < top_k; first += kAtOnce) {
      Part<T, Width> part[kAtOnce];
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j) {
        const int row = first + j < top_k ? of_token[first + j] : -1;
        part[j] = row >= 0 ? load_part<T, Width>(x + row * width + column) : Part<T, Width>{};
      }
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j) {
#pragma unroll
        for (int i = 0; i < Width; ++i) sum[i] += to_float(part[j].at[i]);
      }
    }
    Part<T, Width> result;
#pragma unroll
    for (int i = 0; i < Width; ++i) result.at[i] = from_float<T>(sum[i]);
    store_part(y + t * width + column, result);
  }
}

void gather_rows(Stream& stream, const GatherRows& args) {
  const std::int64_t rows = args.y.shape[0];
  if (args.y.empty()) return;
  const std::int32_t* const index = args.index.as<std::int32_t>();
  visit_unit(args.x.data, args.y.data, row_bytes_of(args.x), [&]<class Unit>(std::int64_t units) {
    const RowGrid grid = grid_for(rows, units);
    gather_kernel<<<grid.blocks, grid.threads, 0, native(stream)>>>(static_cast<const Unit*>(args.x.data), args.x.shape[0], index,
                                                                    static_cast<Unit*>(args.y.data), rows, units);
  });
  check_launch(GatherRows::kName);
}

void spread_rows(Stream& stream, const SpreadRows& args) {
  const std::int64_t tokens = args.x.shape[0];
  if (args.x.empty()) return;
  const std::int32_t* const index = args.index.as<std::int32_t>();
  visit_unit(args.x.data, args.y.data, row_bytes_of(args.x), [&]<class Unit>(std::int64_t units) {
    const RowGrid grid = grid_for(tokens, units);
    spread_kernel<<<grid.blocks, grid.threads, 0, native(stream)>>>(
        static_cast<const Unit*>(args.x.data), index, static_cast<int>(args.index.shape[1]), static_cast<Unit*>(args.y.data), tokens, units);
  });
  check_launch(SpreadRows::kName);
}

template <class T, int Width>
void launch_combine(Stream& stream, const CombineRows& args) {
  const std::int64_t tokens = args.y.shape[0], width = args.y.shape[1];
  const RowGrid grid = grid_for(tokens, width / Width);
  combine_kernel<T, Width><<<grid.blocks, grid.threads, 0, native(stream)>>>(
      static_cast<const T*>(args.x.data), args.index.as<std::int32_t>(), static_cast<int>(args.index.shape[1]),
      args.base.empty() ? nullptr : static_cast<const T*>(args.base.data), static_cast<T*>(args.y.data), tokens, width);
}

void combine_rows(Stream& stream, const CombineRows& args) {
  if (args.y.empty()) return;
  visit(args.y.dtype, [&]<class T>() {
    const std::int64_t width = args.y.shape[1];
    if (aligned16(static_cast<const T*>(args.x.data), width) && aligned16(static_cast<const T*>(args.base.data), width) &&
        aligned16(static_cast<const T*>(args.y.data), width)) {
      launch_combine<T, Vec16<T>::kCount>(stream, args);
    } else {
      launch_combine<T, 1>(stream, args);
    }
  });
  check_launch(CombineRows::kName);
}

const RegisterCuda<GatherRows> registered_gather{gather_rows};
const RegisterCuda<SpreadRows> registered_spread{spread_rows};
const RegisterCuda<CombineRows> registered_combine{combine_rows};

}  // namespace
}  // namespace hadal::kernels::cuda
