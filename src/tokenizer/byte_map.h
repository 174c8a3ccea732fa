// The byte <-> character map of byte-level BPE (spec/interop.md 4.3): tokenizer.json writes token bytes as printable characters.
// Bytes 21-7E, A1-AC, AE-FF are themselves; the other 68, in ascending order, are U+0100, U+0101, ...
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace hadal::tokenizer {

/// Code point of each byte.
const std::array<std::uint32_t, 256>& byte_characters();
/// The 256 bytes sorted by their code points: the order of the initial alphabet (spec/interop.md 4.5).
const std::array<std::uint8_t, 256>& bytes_in_alphabet_order();
/// Mapped form of raw bytes, in UTF-8.
std::string map_bytes(std::string_view bytes);
/// Raw bytes of a mapped string; nothing when a character is outside the map.
std::optional<std::string> unmap_bytes(std::string_view mapped);

}  // namespace hadal::tokenizer
