// How kernels over rows share a row out: parts of a few elements, loaded and stored at once.
#pragma once

#include "kernels/cuda/device_math.cuh"

namespace hadal::kernels::cuda {

/// Width elements as one access moves them: up to 16 bytes.
template <class T, int Width>
struct alignas(sizeof(T) * Width) Part {
  static_assert(sizeof(T) * Width <= 16);
  T at[Width];
};

template <class T, int Width>
__device__ inline Part<T, Width> load_part(const T* from) {
  return *reinterpret_cast<const Part<T, Width>*>(from);
}
template <class T, int Width>
__device__ inline void store_part(T* to, const Part<T, Width>& part) {
  *reinterpret_cast<Part<T, Width>*>(to) = part;
}

/// Lanes for a row of `parts`: a power of two up to `most`.
inline unsigned lanes_for(std::int64_t parts, unsigned most) {
  unsigned lanes = 1;
  while (lanes < parts && lanes < most) lanes *= 2;
  return lanes;
}

}  // namespace hadal::kernels::cuda
