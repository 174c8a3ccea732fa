// Hash of a short byte string for tables in memory (never written to files: core/hash.h is for those).
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace hadal::tokenizer {

/// Folded 64 x 64 -> 128 bit product: every input bit reaches every output bit.
inline std::uint64_t mix64(std::uint64_t a, std::uint64_t b) {
  __extension__ using Wide = unsigned __int128;
  const Wide product = static_cast<Wide>(a) * b;
  return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
}

inline std::uint64_t load64(const char* bytes) {
  std::uint64_t word;
  std::memcpy(&word, bytes, sizeof word);
  return word;
}

inline std::uint64_t load32(const char* bytes) {
  std::uint32_t word;
  std::memcpy(&word, bytes, sizeof word);
  return word;
}

inline std::uint64_t hash_piece(std::string_view piece) {
  constexpr std::uint64_t kA = 0x9E3779B97F4A7C15u;
  constexpr std::uint64_t kB = 0xD6E8FEB86659FD93u;
  const char* bytes = piece.data();
  std::size_t left = piece.size();
  std::uint64_t hash = kA ^ left;
  for (; left > 8; bytes += 8, left -= 8) hash = mix64(hash ^ load64(bytes), kB);
  std::uint64_t tail = 0;
  if (left >= 4) {
    tail = load32(bytes) | load32(bytes + left - 4) << 32;
  } else if (left > 0) {
    const auto byte = [bytes](std::size_t i) { return static_cast<std::uint64_t>(static_cast<unsigned char>(bytes[i])); };
    tail = byte(0) | byte(left / 2) << 8 | byte(left - 1) << 16;
  }
  return mix64(hash ^ tail, kA);
}

}  // namespace hadal::tokenizer
