// UTF-8: decoding, validation, replacement of invalid bytes, and where an unfinished character begins.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace hadal::tokenizer {

inline constexpr std::uint32_t kReplacementCharacter = 0xFFFD;

struct DecodedCharacter {
  std::uint32_t code_point = kReplacementCharacter;
  std::uint32_t size = 1;  ///< bytes of the character, or of the longest invalid prefix that one U+FFFD replaces
  bool valid = false;
  bool truncated = false;  ///< invalid only because the text ends
};

/// The character at `text[at]`, at < text.size(). Overlong forms, surrogates and values above U+10FFFF are invalid.
DecodedCharacter decode_character(std::string_view text, std::size_t at);
void append_utf8(std::uint32_t code_point, std::string& out);

bool is_ascii(std::string_view text);
/// Bytes of the longest valid prefix; text.size() when all of it is valid.
std::size_t valid_prefix(std::string_view text);
/// `text` with every maximal invalid sequence replaced by one U+FFFD (as Python's and Rust's lossy readers do).
/// Adds the number of replacements to `replaced`.
std::string replace_invalid(std::string_view text, std::size_t& replaced);
/// Bytes of the prefix that holds no unfinished character: what is held back after it may become valid with more bytes.
std::size_t complete_prefix(std::string_view text);

/// Unicode White_Space: the class `\s` of the pre-tokenizers (spec/interop.md 4.4).
bool is_whitespace(std::uint32_t code_point);

}  // namespace hadal::tokenizer
