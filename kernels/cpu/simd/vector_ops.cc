#include "kernels/cpu/simd/vector_ops.h"

#include "kernels/cpu/simd/tables.h"

HADAL_SIMD_TABLE(VectorOps, vector_ops)

namespace hadal::kernels::simd::HADAL_SIMD {
namespace {

template <class T>
void add(std::int64_t n, const T* x, T* y) {
  for (std::int64_t i = 0; i < n; ++i) y[i] += x[i];
}

template <class T>
void axpy(std::int64_t n, T a, const T* x, T* y) {
  for (std::int64_t i = 0; i < n; ++i) y[i] += a * x[i];
}

template <class T>
void scale(std::int64_t n, T a, T* y) {
  for (std::int64_t i = 0; i < n; ++i) y[i] *= a;
}

template <class T>
T dot(std::int64_t n, const T* x, const T* y) {
  constexpr int kLanes = 64 / static_cast<int>(sizeof(T));
  T lanes[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] += x[i + lane] * y[i + lane];
  }
  T sum = 0;
  for (int lane = 0; lane < kLanes; ++lane) sum += lanes[lane];
  for (; i < n; ++i) sum += x[i] * y[i];
  return sum;
}

template <class T>
double sum_squares(std::int64_t n, const T* x) {
  double lanes[8] = {};
  std::int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    for (int lane = 0; lane < 8; ++lane) lanes[lane] += static_cast<double>(x[i + lane]) * static_cast<double>(x[i + lane]);
  }
  double sum = 0;
  for (int lane = 0; lane < 8; ++lane) sum += lanes[lane];
  for (; i < n; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return sum;
}

}  // namespace

template <class T>
static constexpr VectorOps<T> kTable{add<T>, axpy<T>, scale<T>, dot<T>, sum_squares<T>};

const VectorOps<float>& vector_ops_f32() { return kTable<float>; }
const VectorOps<double>& vector_ops_f64() { return kTable<double>; }

}  // namespace hadal::kernels::simd::HADAL_SIMD
