// Normal numbers of one stream, many at a time, on the host: initial values of billions of weights.
//
//   values[i] = std * random.normal(first + i), rounded to the type of `values`
//
// to the bits that Random::normal gives one by one. In f32 almost all come from vector instructions (cpu/simd/normal.cc), in f64 none:
// there every bit of the C library's logarithm and cosine is kept.
#pragma once

#include <span>

#include "core/rng.h"

namespace hadal::kernels {

void normal_values(const Random& random, std::uint64_t first, double std, std::span<float> values);
void normal_values(const Random& random, std::uint64_t first, double std, std::span<double> values);

}  // namespace hadal::kernels
