// Gates and branches of one row.
#pragma once

#include <cstdint>

namespace hadal::kernels::simd {

template <class T>
struct BranchGateRows {
  /// logits, bias, g [3 heads]; o0 .. o2, y [heads width].
  void (*forward)(std::int64_t heads, std::int64_t width, const T* logits, const T* bias, const T* o0, const T* o1, const T* o2,
                  T* g, T* y);
  /// d_bias is added to.
  void (*backward)(std::int64_t heads, std::int64_t width, const T* g, const T* o0, const T* o1, const T* o2, const T* d_y,
                   T* d_o0, T* d_o1, T* d_o2, T* d_logits, T* d_bias);
};

template <class T>
const BranchGateRows<T>& branch_gate_rows();

}  // namespace hadal::kernels::simd
