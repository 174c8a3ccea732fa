#include "tokenizer/byte_map.h"

#include <algorithm>
#include <numeric>

#include "tokenizer/utf8.h"

namespace hadal::tokenizer {
namespace {

constexpr std::uint32_t kFirstShifted = 0x100;
constexpr std::uint32_t kNumShifted = 68;

bool maps_to_itself(std::uint32_t byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

// The byte of each code point below kFirstShifted + kNumShifted, -1 for the 68 unmapped ones below 0x100.
const std::array<int, kFirstShifted + kNumShifted>& character_bytes() {
  static const auto table = [] {
    std::array<int, kFirstShifted + kNumShifted> bytes;
    bytes.fill(-1);
    for (int byte = 0; byte < 256; ++byte) bytes[byte_characters()[static_cast<std::size_t>(byte)]] = byte;
    return bytes;
  }();
  return table;
}

}  // namespace

const std::array<std::uint32_t, 256>& byte_characters() {
  static const auto table = [] {
    std::array<std::uint32_t, 256> characters{};
    std::uint32_t next = kFirstShifted;
    for (std::uint32_t byte = 0; byte < 256; ++byte) characters[byte] = maps_to_itself(byte) ? byte : next++;
    return characters;
  }();
  return table;
}

const std::array<std::uint8_t, 256>& bytes_in_alphabet_order() {
  static const auto table = [] {
    std::array<std::uint8_t, 256> bytes{};
    std::iota(bytes.begin(), bytes.end(), std::uint8_t{0});
    std::sort(bytes.begin(), bytes.end(),
              [](std::uint8_t a, std::uint8_t b) { return byte_characters()[a] < byte_characters()[b]; });
    return bytes;
  }();
  return table;
}

std::string map_bytes(std::string_view bytes) {
  std::string mapped;
  mapped.reserve(bytes.size() * 2);
  for (const char byte : bytes) append_utf8(byte_characters()[static_cast<unsigned char>(byte)], mapped);
  return mapped;
}

std::optional<std::string> unmap_bytes(std::string_view mapped) {
  std::string bytes;
  bytes.reserve(mapped.size());
  for (std::size_t at = 0; at < mapped.size();) {
    const DecodedCharacter character = decode_character(mapped, at);
    if (!character.valid || character.code_point >= character_bytes().size()) return std::nullopt;
    const int byte = character_bytes()[character.code_point];
    if (byte < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(byte));
    at += character.size;
  }
  return bytes;
}

}  // namespace hadal::tokenizer
