#include "kernels/normal_values.h"

#include <algorithm>
#include <array>

#include "kernels/cpu/simd/normal.h"
#include "kernels/cpu/simd/tables.h"

namespace hadal::kernels {
namespace simd {

const NormalLoop& normal_loop() { return HADAL_SIMD_CHOICE(normal_loop); }

}  // namespace simd

namespace {

/// Fewer are made one by one.
constexpr std::size_t kFew = 4;

template <class T>
void one_by_one(const Random& random, std::uint64_t first, double std, std::span<T> values) {
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<T>(std * random.normal(first + i));
}

}  // namespace

void normal_values(const Random& random, std::uint64_t first, double std, std::span<float> values) {
  if (values.size() < kFew) return one_by_one(random, first, std, values);
  const simd::NormalLoop& loop = simd::normal_loop();
  const simd::NormalStream stream{{random.key()[0], random.key()[1]}, {random.stream()[0], random.stream()[1]}};
  std::array<std::uint8_t, simd::NormalLoop::kMost> unsure;
  for (std::size_t i = 0; i < values.size(); i += unsure.size()) {
    const std::size_t count = std::min(values.size() - i, unsure.size());
    const int found = loop.fill(stream, first + i, std, static_cast<int>(count), values.data() + i, unsure.data());
    for (int n = 0; n < found; ++n) {
      const std::size_t at = i + unsure[static_cast<std::size_t>(n)];
      values[at] = static_cast<float>(std * random.normal(first + at));
    }
  }
}

void normal_values(const Random& random, std::uint64_t first, double std, std::span<double> values) {
  one_by_one(random, first, std, values);
}

}  // namespace hadal::kernels
