#include "core/rng.h"

#include <cmath>
#include <numbers>

namespace hadal {

std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> c, std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * c[0];
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57u} * c[2];
    c = {static_cast<std::uint32_t>(p1 >> 32) ^ c[1] ^ key[0], static_cast<std::uint32_t>(p1),
         static_cast<std::uint32_t>(p0 >> 32) ^ c[3] ^ key[1], static_cast<std::uint32_t>(p0)};
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return c;
}

Random::Random(std::uint64_t seed, RandomPurpose purpose, std::uint64_t stream)
    : stream_{static_cast<std::uint32_t>(stream), static_cast<std::uint32_t>(stream >> 32)} {
  // The purpose goes through one block of its own, so that neighbouring seeds and purposes share no key.
  const auto mixed = philox({static_cast<std::uint32_t>(purpose), 0, 0, 0},
                            {static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)});
  key_ = {mixed[0], mixed[1]};
}

std::array<std::uint32_t, 4> Random::block(std::uint64_t index) const {
  return philox({static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32), stream_[0], stream_[1]}, key_);
}

std::uint64_t Random::bits(std::uint64_t index) const {
  const auto b = block(index);
  return std::uint64_t{b[0]} | std::uint64_t{b[1]} << 32;
}

double Random::uniform(std::uint64_t index) const { return static_cast<double>(bits(index) >> 11) * 0x1.0p-53; }

std::uint64_t Random::below(std::uint64_t index, std::uint64_t bound) const {
  // High half of the 128-bit product, from 32-bit halves.
  const std::uint64_t x = bits(index);
  const std::uint64_t low = (x & 0xffffffffu) * (bound & 0xffffffffu);
  const std::uint64_t middle = (x >> 32) * (bound & 0xffffffffu) + (low >> 32);
  const std::uint64_t other = (x & 0xffffffffu) * (bound >> 32) + (middle & 0xffffffffu);
  return (x >> 32) * (bound >> 32) + (middle >> 32) + (other >> 32);
}

double Random::normal(std::uint64_t index) const {
  const auto b = block(index);
  const std::uint64_t low = std::uint64_t{b[0]} | std::uint64_t{b[1]} << 32;
  const std::uint64_t high = std::uint64_t{b[2]} | std::uint64_t{b[3]} << 32;
  const double u = (static_cast<double>(low >> 11) + 1.0) * 0x1.0p-53;  // (0, 1]
  const double v = static_cast<double>(high >> 11) * 0x1.0p-53;
  return std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * std::numbers::pi * v);
}

std::uint64_t stream_of(std::string_view name) {
  std::uint64_t hash = 0xcbf29ce484222325ull;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ull;
  return hash;
}

}  // namespace hadal
