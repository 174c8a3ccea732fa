// The densest stream of multiply-adds that the registers allow: what kernels/peak.h measures.
#pragma once

#include <cstdint>

namespace hadal::kernels::simd {

template <class T>
struct PeakLoop {
  T (*run)(std::int64_t steps, T factor, T addend);  ///< the sum of all chains, so that none is left out
  std::int64_t flops_per_step;
};

template <class T>
const PeakLoop<T>& peak_loop();

}  // namespace hadal::kernels::simd
