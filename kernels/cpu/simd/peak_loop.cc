#include "kernels/cpu/simd/peak_loop.h"

#include "kernels/cpu/simd/tables.h"
#include "kernels/cpu/simd/vector.h"

HADAL_SIMD_TABLE(PeakLoop, peak_loop)

namespace hadal::kernels::simd::HADAL_SIMD {
namespace {

// Twelve chains cover the latency of two multiply-add units and leave registers for the operands.
constexpr int kChains = 12;

template <class T>
T run(std::int64_t steps, T factor, T addend) {
  const Vector<T> by = broadcast(factor), plus = broadcast(addend);
  Vector<T> chains[kChains];
  HADAL_UNROLL
  for (int i = 0; i < kChains; ++i) chains[i] = broadcast(static_cast<T>(i));
  HADAL_NO_UNROLL
  for (std::int64_t step = 0; step < steps; ++step) {
    HADAL_UNROLL
    for (int i = 0; i < kChains; ++i) chains[i] = chains[i] * by + plus;
  }
  HADAL_UNROLL
  for (int i = 1; i < kChains; ++i) chains[0] += chains[i];
  T sum = 0;
  for (int lane = 0; lane < kLanesOf<T>; ++lane) sum += chains[0][lane];
  return sum;
}

template <class T>
static constexpr PeakLoop<T> kTable{run<T>, 2 * kChains* kLanesOf<T>};

}  // namespace

const PeakLoop<float>& peak_loop_f32() { return kTable<float>; }
const PeakLoop<double>& peak_loop_f64() { return kTable<double>; }

}  // namespace hadal::kernels::simd::HADAL_SIMD
