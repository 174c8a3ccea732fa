#include "kernels/cpu/simd/adamw.h"

#include "kernels/cpu/simd/tables.h"

HADAL_SIMD_TABLE(AdamWLoop, adamw_loop)

namespace hadal::kernels::simd::HADAL_SIMD {
namespace {

inline float square_root(float x) { return __builtin_sqrtf(x); }
inline double square_root(double x) { return __builtin_sqrt(x); }

template <class T>
void update(std::int64_t n, const AdamWFactors<T>& f, const T* grad, T* value, T* m, T* v, T* ema) {
  const AdamWFactors<T> c = f;
  for (std::int64_t i = 0; i < n; ++i) {
    const T g = grad[i] * c.grad_scale;
    m[i] = c.beta1 * m[i] + (T{1} - c.beta1) * g;
    v[i] = c.beta2 * v[i] + (T{1} - c.beta2) * g * g;
    value[i] = value[i] * c.keep - c.step_size * m[i] / (square_root(v[i]) * c.inverse_sqrt_correction2 + c.eps);
  }
  if (ema == nullptr) return;
  for (std::int64_t i = 0; i < n; ++i) ema[i] = c.ema_decay * ema[i] + (T{1} - c.ema_decay) * value[i];
}

template <class T>
static constexpr AdamWLoop<T> kTable{update<T>};

}  // namespace

const AdamWLoop<float>& adamw_loop_f32() { return kTable<float>; }
const AdamWLoop<double>& adamw_loop_f64() { return kTable<double>; }

}  // namespace hadal::kernels::simd::HADAL_SIMD
