#include "kernels/cpu/simd/branch_gate.h"

#include "kernels/cpu/simd/exp.h"
#include "kernels/cpu/simd/tables.h"

HADAL_SIMD_TABLE(BranchGateRows, branch_gate_rows)

namespace hadal::kernels::simd::HADAL_SIMD {
namespace {

template <class T>
void forward(std::int64_t heads, std::int64_t width, const T* logits, const T* bias, const T* o0, const T* o1, const T* o2, T* g,
             T* y) {
  for (std::int64_t i = 0; i < 3 * heads; ++i) g[i] = T{1} / (T{1} + exp_approx(-(logits[i] + bias[i])));
  for (std::int64_t h = 0; h < heads; ++h) {
    const T a = g[h], b = g[heads + h], c = g[2 * heads + h];
    const std::int64_t at = h * width;
    for (std::int64_t i = at; i < at + width; ++i) y[i] = a * o0[i] + b * o1[i] + c * o2[i];
  }
}

/// d_o = g d_y; returns <d_y, o>, over fixed lanes.
template <class T>
T scale_and_dot(std::int64_t n, T g, const T* __restrict d_y, const T* __restrict o, T* __restrict d_o) {
  constexpr int kLanes = 64 / static_cast<int>(sizeof(T));
  T lanes[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      lanes[lane] += d_y[i + lane] * o[i + lane];
      d_o[i + lane] = g * d_y[i + lane];
    }
  }
  T sum = 0;
  for (int lane = 0; lane < kLanes; ++lane) sum += lanes[lane];
  for (; i < n; ++i) {
    sum += d_y[i] * o[i];
    d_o[i] = g * d_y[i];
  }
  return sum;
}

template <class T>
void backward(std::int64_t heads, std::int64_t width, const T* g, const T* o0, const T* o1, const T* o2, const T* d_y, T* d_o0,
              T* d_o1, T* d_o2, T* d_logits, T* d_bias) {
  const T* o[3] = {o0, o1, o2};
  T* d_o[3] = {d_o0, d_o1, d_o2};
  for (std::int64_t b = 0; b < 3; ++b) {
    for (std::int64_t h = 0; h < heads; ++h) {
      const std::int64_t i = b * heads + h, at = h * width;
      d_logits[i] = scale_and_dot(width, g[i], d_y + at, o[b] + at, d_o[b] + at) * g[i] * (T{1} - g[i]);
      d_bias[i] += d_logits[i];
    }
  }
}

template <class T>
static constexpr BranchGateRows<T> kTable{forward<T>, backward<T>};

}  // namespace

const BranchGateRows<float>& branch_gate_rows_f32() { return kTable<float>; }
const BranchGateRows<double>& branch_gate_rows_f64() { return kTable<double>; }

}  // namespace hadal::kernels::simd::HADAL_SIMD
