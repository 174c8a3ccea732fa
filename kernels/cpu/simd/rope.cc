#include "kernels/cpu/simd/rope.h"

#include "kernels/cpu/simd/tables.h"

HADAL_SIMD_TABLE(RopeRows, rope_rows)

namespace hadal::kernels::simd::HADAL_SIMD {
namespace {

template <class T>
void in_place(std::int64_t heads, std::int64_t pairs, T sine_sign, const T* cosines, const T* sines, T* y,
              std::int64_t y_stride) {
  for (std::int64_t h = 0; h < heads; ++h) {
    T* __restrict row = y + h * y_stride;
    const T* __restrict c = cosines;
    const T* __restrict s = sines;
    for (std::int64_t i = 0; i < pairs; ++i) {
      const T a = row[2 * i], b = row[2 * i + 1], sine = sine_sign * s[i];
      row[2 * i] = c[i] * a - sine * b;
      row[2 * i + 1] = sine * a + c[i] * b;
    }
  }
}

template <class T, bool kAdd>
void out_of_place(std::int64_t heads, std::int64_t pairs, T sine_sign, const T* cosines, const T* sines, const T* x,
                  std::int64_t x_stride, T* y, std::int64_t y_stride) {
  for (std::int64_t h = 0; h < heads; ++h) {
    const T* __restrict in = x + h * x_stride;
    T* __restrict out = y + h * y_stride;
    const T* __restrict c = cosines;
    const T* __restrict s = sines;
    for (std::int64_t i = 0; i < pairs; ++i) {
      const T a = in[2 * i], b = in[2 * i + 1], sine = sine_sign * s[i];
      const T first = c[i] * a - sine * b, second = sine * a + c[i] * b;
      out[2 * i] = kAdd ? out[2 * i] + first : first;
      out[2 * i + 1] = kAdd ? out[2 * i + 1] + second : second;
    }
  }
}

template <class T>
static constexpr RopeRows<T> kTable{in_place<T>, out_of_place<T, false>, out_of_place<T, true>};

}  // namespace

const RopeRows<float>& rope_rows_f32() { return kTable<float>; }
const RopeRows<double>& rope_rows_f64() { return kTable<double>; }

}  // namespace hadal::kernels::simd::HADAL_SIMD
