#include "kernels/cpu/simd/swiglu.h"

#include "kernels/cpu/simd/exp.h"
#include "kernels/cpu/simd/tables.h"

HADAL_SIMD_TABLE(SwigluRows, swiglu_rows)

namespace hadal::kernels::simd::HADAL_SIMD {
namespace {

template <class T>
void forward(std::int64_t width, const T* gate, const T* up, T weight, T* h) {
  for (std::int64_t i = 0; i < width; ++i) {
    const T sigma = T{1} / (T{1} + exp_approx(-gate[i]));
    h[i] = weight * (gate[i] * sigma * up[i]);
  }
}

template <class T>
T backward(std::int64_t width, const T* gate, const T* up, T weight, const T* d_h, T* d_gate, T* d_up) {
  constexpr int kLanes = 64 / static_cast<int>(sizeof(T));
  T lanes[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const T a = gate[i + lane], b = up[i + lane], d = d_h[i + lane];
      const T sigma = T{1} / (T{1} + exp_approx(-a));
      lanes[lane] += d * a * sigma * b;
      d_gate[i + lane] = weight * d * b * sigma * (T{1} + a * (T{1} - sigma));
      d_up[i + lane] = weight * d * a * sigma;
    }
  }
  T sum = 0;
  for (int lane = 0; lane < kLanes; ++lane) sum += lanes[lane];
  for (; i < width; ++i) {
    const T a = gate[i], b = up[i], d = d_h[i];
    const T sigma = T{1} / (T{1} + exp_approx(-a));
    sum += d * a * sigma * b;
    d_gate[i] = weight * d * b * sigma * (T{1} + a * (T{1} - sigma));
    d_up[i] = weight * d * a * sigma;
  }
  return sum;
}

template <class T>
constexpr SwigluRows<T> kTable{forward<T>, backward<T>};

}  // namespace

const SwigluRows<float>& swiglu_rows_f32() { return kTable<float>; }
const SwigluRows<double>& swiglu_rows_f64() { return kTable<double>; }

}  // namespace hadal::kernels::simd::HADAL_SIMD
