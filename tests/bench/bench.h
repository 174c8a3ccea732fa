// What every op bench shares: filling operands, and counters as shares of the machine's measured peak.
#pragma once

#include <benchmark/benchmark.h>
#include <time.h>

#include <cstdint>

#include "core/parallel_for.h"
#include "core/tensor.h"
#include "kernels/peak.h"

namespace hadal::bench {

/// Uniform values in [-1, 1), the same for each run.
template <class T>
void fill(Tensor& tensor, std::uint32_t seed = 1) {
  std::uint32_t state = seed * 2654435761u + 12345u;
  for (T& value : tensor.span<T>()) {
    state = state * 1664525u + 1013904223u;
    value = static_cast<T>(static_cast<double>(state >> 8) / 8388608.0 - 1.0);
  }
}

template <class T>
Tensor filled(Shape shape, std::uint32_t seed = 1) {
  Tensor tensor = Tensor::empty(shape, kDTypeOf<T>);
  fill<T>(tensor, seed);
  return tensor;
}

/// Counters of an op bound by arithmetic: GFLOP/s, and share of the peak of the threads in use, measured within the same second
/// (clocks and neighbours change). Seconds of one call.
inline void report_flops(benchmark::State& state, DType dtype, double flops, double seconds) {
  state.counters["GFLOP/s"] = flops / seconds / 1e9;
  state.counters["of_peak"] = flops / seconds / kernels::measure_peak_flops(dtype, num_threads());
}

/// Counters of an op bound by memory: GB/s, and share of the copy bandwidth.
inline void report_bytes(benchmark::State& state, double bytes, double seconds) {
  state.counters["GB/s"] = bytes / seconds / 1e9;
  state.counters["of_copy"] = bytes / seconds / kernels::copy_bandwidth(num_threads());
}

/// Seconds for differences: of one thread alone the time that it ran, since others may share the machine; of several the clock.
inline double seconds_now() {
  timespec now{};
  clock_gettime(num_threads() == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

/// Times body() as the best of the state's iterations (others may share the machine); returns those seconds.
template <class Body>
double best_of(benchmark::State& state, const Body& body) {
  double best = 1e30;
  for (auto unused : state) {
    (void)unused;
    const double start = seconds_now();
    body();
    const double seconds = seconds_now() - start;
    state.SetIterationTime(seconds);
    best = seconds < best ? seconds : best;
  }
  return best;
}

}  // namespace hadal::bench
