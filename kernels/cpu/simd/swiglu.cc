#include "kernels/cpu/simd/swiglu.h"

#include "kernels/cpu/simd/exp.h"
#include "kernels/cpu/simd/tables.h"
#include "kernels/cpu/simd/vector.h"

HADAL_SIMD_TABLE(SwigluRows, swiglu_rows)

namespace hadal::kernels::simd::HADAL_SIMD {
namespace {

/// Gate and up columns of the next row, two widths on: short streams that the hardware does not follow.
template <class T>
inline void ask_ahead(const T* gate, const T* up, std::int64_t width) {
  __builtin_prefetch(gate + 2 * width);
  __builtin_prefetch(up + 2 * width);
}

template <class T>
void forward(std::int64_t width, const T* gate, const T* up, T weight, T* h) {
  std::int64_t i = 0;
  for (; i + kLanesOf<T> <= width; i += kLanesOf<T>) {
    ask_ahead(gate + i, up + i, width);
    const Vector<T> a = load(gate + i);
    store(h + i, weight * (a / (T{1} + exp_of(-a)) * load(up + i)));
  }
  for (; i < width; ++i) h[i] = weight * (gate[i] / (T{1} + exp_approx(-gate[i])) * up[i]);
}

// sigma (1 + a (1 - sigma)) is the derivative of silu. A row is read before it is written: d_gate may be gate, d_up may be up.
template <class T>
T backward(std::int64_t width, const T* gate, const T* up, T weight, const T* d_h, T* d_gate, T* d_up) {
  Vector<T> sums{};
  std::int64_t i = 0;
  for (; i + kLanesOf<T> <= width; i += kLanesOf<T>) {
    ask_ahead(gate + i, up + i, width);
    const Vector<T> a = load(gate + i), b = load(up + i), d = load(d_h + i);
    const Vector<T> sigma = T{1} / (T{1} + exp_of(-a)), silu = a * sigma;
    sums += d * silu * b;
    store(d_gate + i, weight * d * b * (sigma * (T{1} + a * (T{1} - sigma))));
    store(d_up + i, weight * d * silu);
  }
  T sum = 0;
  for (int lane = 0; lane < kLanesOf<T>; ++lane) sum += sums[lane];
  for (; i < width; ++i) {
    const T a = gate[i], b = up[i], d = d_h[i];
    const T sigma = T{1} / (T{1} + exp_approx(-a));
    sum += d * (a * sigma) * b;
    d_gate[i] = weight * d * b * (sigma * (T{1} + a * (T{1} - sigma)));
    d_up[i] = weight * d * (a * sigma);
  }
  return sum;
}

template <class T>
static constexpr SwigluRows<T> kTable{forward<T>, backward<T>};

}  // namespace

const SwigluRows<float>& swiglu_rows_f32() { return kTable<float>; }
const SwigluRows<double>& swiglu_rows_f64() { return kTable<double>; }

}  // namespace hadal::kernels::simd::HADAL_SIMD
