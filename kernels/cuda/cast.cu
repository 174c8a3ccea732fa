// Cast: eight elements a thread and turn, in 16-byte accesses on either side; what is not aligned goes one by one.
#include <algorithm>

#include "kernels/cast.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda/visit.h"
#include "kernels/op.h"

namespace hadal::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kGroup = 8;    // elements: one vector of bf16, two of f32
constexpr int kUnroll = 2;   // groups in flight per thread

template <class T>
__device__ void load_group(const T* from, float (&to)[kGroup]) {
#pragma unroll
  for (int part = 0; part < kGroup / Vec16<T>::kCount; ++part) {
    const Vec16<T> vec = load16(from + part * Vec16<T>::kCount);
#pragma unroll
    for (int i = 0; i < Vec16<T>::kCount; ++i) to[part * Vec16<T>::kCount + i] = to_float(vec.at[i]);
  }
}

template <class T>
__device__ void store_group(T* to, const float (&from)[kGroup]) {
#pragma unroll
  for (int part = 0; part < kGroup / Vec16<T>::kCount; ++part) {
    Vec16<T> vec;
#pragma unroll
    for (int i = 0; i < Vec16<T>::kCount; ++i) vec.at[i] = from_float<T>(from[part * Vec16<T>::kCount + i]);
    store16(to + part * Vec16<T>::kCount, vec);
  }
}

template <class From, class To, bool kAccumulate>
__global__ void __launch_bounds__(kThreads) cast_groups(const From* __restrict__ x, To* __restrict__ y, std::int64_t groups) {
  const std::int64_t first = std::int64_t{blockIdx.x} * kThreads * kUnroll + threadIdx.x;
  float values[kUnroll][kGroup], old[kUnroll][kGroup];
#pragma unroll
  for (int u = 0; u < kUnroll; ++u) {
    const std::int64_t group = first + u * kThreads;
    if (group >= groups) break;
    load_group(x + group * kGroup, values[u]);
    if constexpr (kAccumulate) load_group(y + group * kGroup, old[u]);
  }
#pragma unroll
  for (int u = 0; u < kUnroll; ++u) {
    const std::int64_t group = first + u * kThreads;
    if (group >= groups) break;
    if constexpr (kAccumulate) {
#pragma unroll
      for (int i = 0; i < kGroup; ++i) values[u][i] += old[u][i];
    }
    store_group(y + group * kGroup, values[u]);
  }
}

/// Elements [begin, count).
template <class From, class To, bool kAccumulate>
__global__ void __launch_bounds__(kThreads) cast_elements(const From* __restrict__ x, To* __restrict__ y, std::int64_t begin, std::int64_t count) {
  const std::int64_t i = begin + std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= count) return;
  float value = to_float(x[i]);
  if constexpr (kAccumulate) value += to_float(y[i]);
  y[i] = from_float<To>(value);
}

template <class From, class To, bool kAccumulate>
void launch_cast(cudaStream_t stream, const From* x, To* y, std::int64_t count) {
  const std::int64_t groups = aligned16(x, 0) && aligned16(y, 0) ? count / kGroup : 0;
  if (groups > 0) {
    const auto blocks = static_cast<unsigned>((groups + kThreads * kUnroll - 1) / (kThreads * kUnroll));
    cast_groups<From, To, kAccumulate><<<blocks, kThreads, 0, stream>>>(x, y, groups);
    check_launch("cast");
  }
  const std::int64_t begin = groups * kGroup;
  if (begin == count) return;
  const auto blocks = static_cast<unsigned>((count - begin + kThreads - 1) / kThreads);
  cast_elements<From, To, kAccumulate><<<blocks, kThreads, 0, stream>>>(x, y, begin, count);
  check_launch("cast");
}

void cast(Stream& stream, const Cast& args) {
  visit(args.x.dtype, [&]<class From>() {
    visit(args.y.dtype, [&]<class To>() {
      const auto* const x = static_cast<const From*>(args.x.data);
      auto* const y = static_cast<To*>(args.y.data);
      if (args.accumulate) {
        launch_cast<From, To, true>(native(stream), x, y, args.x.numel());
      } else {
        launch_cast<From, To, false>(native(stream), x, y, args.x.numel());
      }
    });
  });
}

const RegisterCuda<Cast> registered{cast};

}  // namespace
}  // namespace hadal::kernels::cuda
