// What this machine can do at most, measured: the denominators of every share that Hadal prints.
// Measured once per (dtype, threads) and process, in some 10-40 ms, by the time that the threads really ran: other load on the
// machine hardly lowers the figures.
#pragma once

#include "core/dtype.h"

namespace hadal::kernels {

/// Floating-point operations per second of `threads` threads together (a multiply-add counts two), in registers, with the
/// vectors of the active instruction set. dtype f32 or f64.
double peak_flops(DType dtype, int threads);
/// The same, measured anew: for a bench that compares within the same second.
double measure_peak_flops(DType dtype, int threads);

/// Bytes read plus bytes written per second when `threads` threads copy memory that no cache holds.
double copy_bandwidth(int threads);

}  // namespace hadal::kernels
