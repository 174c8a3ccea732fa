// The denominator of every share that a run prints: what its device can do at most, measured.
#pragma once

#include "core/storage.h"

namespace hadal::train {

/// Floating-point operations per second of one rank: of its threads on the CPU (kernels/peak.h), else of the fastest large matrix
/// product in this dtype. Measured once per process.
double peak_flops(Storage storage);

}  // namespace hadal::train
