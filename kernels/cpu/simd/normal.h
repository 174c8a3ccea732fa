// Many normal numbers of one stream at once.
#pragma once

#include <cstdint>

namespace hadal::kernels::simd {

/// Key and stream of a Random (core/rng.h).
struct NormalStream {
  std::uint32_t key[2], stream[2];
};

struct NormalLoop {
  static constexpr std::int64_t kMost = 256;  ///< numbers of a call

  /// values[i] = float of std * normal(first + i) for i < count; `unsure` gets those i, ascending, of which the last bit is not
  /// certain. Returns how many.
  int (*fill)(const NormalStream& from, std::uint64_t first, double std, int count, float* values, std::uint8_t* unsure);
};

namespace portable {
const NormalLoop& normal_loop();
}
namespace avx2 {
const NormalLoop& normal_loop();
}
namespace avx512 {
const NormalLoop& normal_loop();
}

/// Of the active instruction set.
const NormalLoop& normal_loop();

}  // namespace hadal::kernels::simd
