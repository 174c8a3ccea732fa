// Box-Muller over Philox blocks as core/rng.cc has it, in loops that the compiler vectorises, over pieces that stay in the first-level
// cache. What Random::normal gets from the C library comes from polynomials here:
//
//   log u = e ln 2 + 2 atanh((m - 1) / (m + 1)),  u = 2^e m,  m in [sqrt(1/2), sqrt(2))
//   cos a = +-cos r or +-sin r,  r = a - k pi/2,  |r| <= pi/4
//
// Each is within a few units in the last place of a double, the product within kError of the library's; where both ends of that
// interval round to one float, that float is what Random::normal would have given, and all but one in four million do. Others, and
// results next to zero, where the relative error is not bounded so, are reported.
//
// Compiled without contraction: a = 2 pi v is to be rounded as Random::normal rounds it, since next to a zero of the cosine that decides.
#include "kernels/cpu/simd/normal.h"

#include "kernels/cpu/simd/vector.h"

namespace hadal::kernels::simd::HADAL_SIMD {
namespace {

constexpr int kMost = static_cast<int>(NormalLoop::kMost);
constexpr int kStep = 16;  ///< numbers are made by so many
constexpr double kError = 0x1.0p-47;
constexpr double kLeast = 0x1.0p-26;  ///< of |normal|

using Words = std::uint32_t[kMost];
using Doubles = double[kMost];

void philox_blocks(const NormalStream& from, std::uint64_t first, int count, Words& a, Words& b, Words& c, Words& d) {
  for (int i = 0; i < count; ++i) {
    const std::uint64_t index = first + static_cast<std::uint64_t>(i);
    a[i] = static_cast<std::uint32_t>(index);
    b[i] = static_cast<std::uint32_t>(index >> 32);
  }
  for (int i = 0; i < count; ++i) {
    std::uint32_t c0 = a[i], c1 = b[i], c2 = from.stream[0], c3 = from.stream[1], k0 = from.key[0], k1 = from.key[1];
    HADAL_UNROLL
    for (int round = 0; round < 10; ++round) {
      const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * c0, p1 = std::uint64_t{0xCD9E8D57u} * c2;
      c0 = static_cast<std::uint32_t>(p1 >> 32) ^ c1 ^ k0;
      c1 = static_cast<std::uint32_t>(p1);
      c2 = static_cast<std::uint32_t>(p0 >> 32) ^ c3 ^ k1;
      c3 = static_cast<std::uint32_t>(p0);
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    a[i] = c0;
    b[i] = c1;
    c[i] = c2;
    d[i] = c3;
  }
}

/// A word as a double, by way of the signed conversion, which every instruction set has.
inline double exact(std::uint32_t word) { return static_cast<double>(static_cast<std::int32_t>(word ^ 0x80000000u)) + 2147483648.0; }

/// The upper 53 of 64 bits, as a number.
inline double upper_bits(std::uint32_t low, std::uint32_t high) { return exact(high) * 2097152.0 + exact(low >> 11); }

inline Vector<double> log_of(Vector<double> u) {
  typedef std::uint64_t Integers __attribute__((vector_size(HADAL_VECTOR_BYTES)));
  constexpr double kLn2High = 6.93147180369123816490e-01, kLn2Low = 1.90821492927058770002e-10;
  constexpr double kMagic = 4503599627370496.0;  // 2^52: bits below it are an integer
  const auto bits = reinterpret_cast<Integers>(u);
  const auto above = reinterpret_cast<Vector<double>>((bits & 0x000fffffffffffffu) | 0x3ff0000000000000u);
  const auto power = reinterpret_cast<Vector<double>>((bits >> 52) | __builtin_bit_cast(std::uint64_t, kMagic)) - (kMagic + 1023.0);
  const auto large = above > 1.4142135623730951;
  const Vector<double> m = large ? 0.5 * above : above, e = large ? power + 1.0 : power;
  const Vector<double> s = (m - 1.0) / (m + 1.0), z = s * s;
  constexpr double kFactors[] = {2.0 / 19.0, 2.0 / 17.0, 2.0 / 15.0, 2.0 / 13.0, 2.0 / 11.0, 2.0 / 9.0, 2.0 / 7.0, 2.0 / 5.0, 2.0 / 3.0};
  Vector<double> p = broadcast(2.0 / 21.0);
  HADAL_UNROLL
  for (int i = 0; i < 9; ++i) p = p * z + kFactors[i];
  p = s * z * p + 2.0 * s;
  return e * kLn2High + (e * kLn2Low + p);
}

/// Of 0 <= a <= 2 pi.
inline Vector<double> cosine_of(Vector<double> a) {
  constexpr double kTwoOverPi = 0.63661977236758134308, kMagic = 6755399441055744.0;  // 1.5 * 2^52: adding it rounds to an integer
  constexpr double kHigh = 0x1.921fb544p0, kLow = 0x1.0b4611a626331p-34;                 // of pi / 2; k kHigh is exact
  const Vector<double> k = (a * kTwoOverPi + kMagic) - kMagic;
  const Vector<double> r = (a - k * kHigh) - k * kLow, z = r * r;
  constexpr double kSine[] = {1.0 / 6227020800.0, -1.0 / 39916800.0, 1.0 / 362880.0, -1.0 / 5040.0, 1.0 / 120.0, -1.0 / 6.0};
  constexpr double kCosine[] = {-1.0 / 87178291200.0, 1.0 / 479001600.0, -1.0 / 3628800.0, 1.0 / 40320.0, -1.0 / 720.0, 1.0 / 24.0};
  Vector<double> sine = broadcast(-1.0 / 1307674368000.0), cosine = broadcast(1.0 / 20922789888000.0);
  HADAL_UNROLL
  for (int i = 0; i < 6; ++i) {
    sine = sine * z + kSine[i];
    cosine = cosine * z + kCosine[i];
  }
  sine = r * z * sine + r;
  cosine = z * z * cosine + (1.0 - 0.5 * z);
  const Vector<double> size = ((k == 1.0) | (k == 3.0)) ? sine : cosine;
  return ((k == 1.0) | (k == 2.0)) ? -size : size;
}

int fill(const NormalStream& from, std::uint64_t first, double std, int count, float* values, std::uint8_t* unsure) {
  constexpr int kLanes = kLanesOf<double>;
  static_assert(kStep % kLanes == 0 && kMost % kStep == 0);
  const int made = (count + kStep - 1) / kStep * kStep;
  alignas(64) Words a, b, c, d;
  alignas(64) Doubles radius, angle;
  alignas(64) float low[kMost], high[kMost];
  philox_blocks(from, first, made, a, b, c, d);
  for (int i = 0; i < made; ++i) {
    radius[i] = (upper_bits(a[i], b[i]) + 1.0) * 0x1.0p-53;
    angle[i] = 6.283185307179586476925 * (upper_bits(c[i], d[i]) * 0x1.0p-53);
  }
  for (int i = 0; i < made; i += kLanes) store(radius + i, -2.0 * log_of(load(radius + i)));
  for (int i = 0; i < made; ++i) radius[i] = __builtin_sqrt(radius[i]);
  for (int i = 0; i < made; i += kLanes) {
    const Vector<double> normal = load(radius + i) * cosine_of(load(angle + i)), value = std * normal;
    const auto certain = (normal > kLeast) | (normal < -kLeast);
    store(radius + i, value * (1.0 - kError));
    store(angle + i, certain ? value * (1.0 + kError) : broadcast(__builtin_nan("")));
  }
  int differ = 0;
  for (int i = 0; i < made; ++i) {
    low[i] = static_cast<float>(radius[i]);
    high[i] = static_cast<float>(angle[i]);
  }
  for (int i = 0; i < made; ++i) differ += low[i] == high[i] ? 0 : 1;
  for (int i = 0; i < count; ++i) values[i] = low[i];
  int found = 0;
  if (differ == 0) return found;
  for (int i = 0; i < count; ++i) {
    if (low[i] != high[i]) unsure[found++] = static_cast<std::uint8_t>(i);
  }
  return found;
}

constexpr NormalLoop kLoop{fill};

}  // namespace

const NormalLoop& normal_loop() { return kLoop; }

}  // namespace hadal::kernels::simd::HADAL_SIMD
