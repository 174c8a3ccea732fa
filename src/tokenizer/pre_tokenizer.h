// Pre-tokenizers: cut text into pieces that merges never cross (spec/interop.md 4.4).
// DeepSeek-V3 is three Split/Isolated stages: each stage runs on every piece of the stage before with that piece as its whole
// subject; matches become pieces and so do the gaps between them. GPT-2 is one stage.
// Categories are those of the PCRE2 linked (10.42: Unicode 14). To it, code points assigned later are no letters, and only
// there pieces can differ from those of HF tokenizers, which knows a younger Unicode.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace hadal::tokenizer {

enum class PreTokenizerKind : std::uint8_t { kDeepSeekV3, kGpt2 };

/// "deepseek-v3", "gpt-2".
std::string_view name_of(PreTokenizerKind kind);
std::optional<PreTokenizerKind> pre_tokenizer_kind_of(std::string_view name);

/// Appends the pieces of `text`, in order; their concatenation is `text`. `text` must be valid UTF-8. Thread-safe.
void split_pieces(PreTokenizerKind kind, std::string_view text, std::vector<std::string_view>& pieces);
/// The same by the regular expressions alone, which define it (lines of ASCII go a faster way above).
void split_pieces_by_regex(PreTokenizerKind kind, std::string_view text, std::vector<std::string_view>& pieces);

/// The first position in [from, text.size()) where `text` may be cut in two without changing any piece; text.size() when
/// there is none. `text` may hold invalid UTF-8.
std::size_t find_safe_cut(PreTokenizerKind kind, std::string_view text, std::size_t from);

/// The regular expressions of the stages as tokenizer.json writes them (GPT-2's is implied by ByteLevel's use_regex).
const std::vector<std::string>& stage_patterns(PreTokenizerKind kind);

}  // namespace hadal::tokenizer
