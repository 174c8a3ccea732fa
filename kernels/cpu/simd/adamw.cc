#include "kernels/cpu/simd/adamw.h"

#include "kernels/cpu/simd/tables.h"

HADAL_SIMD_TABLE(AdamWLoop, adamw_loop)

namespace hadal::kernels::simd::HADAL_SIMD {
namespace {

inline float square_root(float x) { return __builtin_sqrtf(x); }
inline double square_root(double x) { return __builtin_sqrt(x); }

template <class T>
inline T load(T moment) {
  return moment;
}
template <class T>
inline T load(std::uint16_t moment) {
  return static_cast<T>(__builtin_bit_cast(float, static_cast<std::uint32_t>(moment) << 16));
}

template <class T>
inline void store(T moment, T& to) {
  to = moment;
}
/// core/dtype.h's to_bf16 without branches.
template <class T>
inline void store(T moment, std::uint16_t& to) {
  const auto bits = __builtin_bit_cast(std::uint32_t, static_cast<float>(moment));
  const std::uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
  to = static_cast<std::uint16_t>(nan ? (bits >> 16) | 0x40u : rounded);
}

/// M: how moments are stored, T or the bits of bfloat16.
template <class T, class M>
void update(std::int64_t n, const AdamWFactors<T>& f, const T* grad, T* value, M* m, M* v, T* ema) {
  const AdamWFactors<T> c = f;
  for (std::int64_t i = 0; i < n; ++i) {
    const T g = grad[i] * c.grad_scale;
    const T first = c.beta1 * load<T>(m[i]) + (T{1} - c.beta1) * g;
    const T second = c.beta2 * load<T>(v[i]) + (T{1} - c.beta2) * g * g;
    store(first, m[i]);
    store(second, v[i]);
    value[i] = value[i] * c.keep - c.step_size * first / (square_root(second) * c.inverse_sqrt_correction2 + c.eps);
  }
  if (ema == nullptr) return;
  for (std::int64_t i = 0; i < n; ++i) ema[i] = c.ema_decay * ema[i] + (T{1} - c.ema_decay) * value[i];
}

template <class T>
static constexpr AdamWLoop<T> kTable{update<T, T>, update<T, std::uint16_t>};

}  // namespace

const AdamWLoop<float>& adamw_loop_f32() { return kTable<float>; }
const AdamWLoop<double>& adamw_loop_f64() { return kTable<double>; }

}  // namespace hadal::kernels::simd::HADAL_SIMD
