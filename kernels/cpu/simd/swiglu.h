// Row loops of SwiGLU.
#pragma once

#include <cstdint>

namespace hadal::kernels::simd {

template <class T>
struct SwigluRows {
  void (*forward)(std::int64_t width, const T* gate, const T* up, T weight, T* h);
  /// Returns d_weight. d_gate may be gate, d_up may be up.
  T (*backward)(std::int64_t width, const T* gate, const T* up, T weight, const T* d_h, T* d_gate, T* d_up);
};

template <class T>
const SwigluRows<T>& swiglu_rows();

}  // namespace hadal::kernels::simd
