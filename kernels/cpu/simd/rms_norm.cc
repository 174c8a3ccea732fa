#include "kernels/cpu/simd/rms_norm.h"

#include "kernels/cpu/simd/tables.h"

HADAL_SIMD_TABLE(RmsNormRows, rms_norm_rows)

namespace hadal::kernels::simd::HADAL_SIMD {
namespace {

// Sums run over fixed lanes, then over the lanes in order: one answer for every loop shape.
template <class T>
inline constexpr int kLanes = 64 / static_cast<int>(sizeof(T));

template <class T>
T sum_lanes(const T (&lanes)[kLanes<T>]) {
  T sum = 0;
  for (int lane = 0; lane < kLanes<T>; ++lane) sum += lanes[lane];
  return sum;
}

template <class T>
T forward(std::int64_t width, const T* x, const T* gain, double eps, T* y) {
  T lanes[kLanes<T>] = {};
  std::int64_t i = 0;
  for (; i + kLanes<T> <= width; i += kLanes<T>) {
    for (int lane = 0; lane < kLanes<T>; ++lane) lanes[lane] += x[i + lane] * x[i + lane];
  }
  T sum = sum_lanes<T>(lanes);
  for (; i < width; ++i) sum += x[i] * x[i];
  const T mean = sum / static_cast<T>(width) + static_cast<T>(eps);
  const T rho = T{1} / (sizeof(T) == 4 ? static_cast<T>(__builtin_sqrtf(static_cast<float>(mean))) : static_cast<T>(__builtin_sqrt(mean)));
  for (i = 0; i < width; ++i) y[i] = gain[i] * (x[i] * rho);
  return rho;
}

template <class T>
void backward(std::int64_t width, const T* x, const T* gain, T rho, const T* d_y, const T* residual, T* d_x, T* d_gain) {
  T lanes[kLanes<T>] = {};
  std::int64_t i = 0;
  for (; i + kLanes<T> <= width; i += kLanes<T>) {
    for (int lane = 0; lane < kLanes<T>; ++lane) {
      const T product = d_y[i + lane] * x[i + lane];
      lanes[lane] += product * gain[i + lane];
      d_gain[i + lane] += product * rho;
    }
  }
  T sum = sum_lanes<T>(lanes);
  for (; i < width; ++i) {
    const T product = d_y[i] * x[i];
    sum += product * gain[i];
    d_gain[i] += product * rho;
  }
  const T pull = rho * rho * rho * sum / static_cast<T>(width);
  if (residual == nullptr) {
    for (i = 0; i < width; ++i) d_x[i] = gain[i] * d_y[i] * rho - x[i] * pull;
  } else {
    for (i = 0; i < width; ++i) d_x[i] = residual[i] + (gain[i] * d_y[i] * rho - x[i] * pull);
  }
}

template <class T>
static constexpr RmsNormRows<T> kTable{forward<T>, backward<T>};

}  // namespace

const RmsNormRows<float>& rms_norm_rows_f32() { return kTable<float>; }
const RmsNormRows<double>& rms_norm_rows_f64() { return kTable<double>; }

}  // namespace hadal::kernels::simd::HADAL_SIMD
