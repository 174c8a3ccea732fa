// tokenizer.json and tokenizer_config.json (spec/interop.md 4.1, 4.2): the part of HF's format that byte-level BPE needs.
// Every component that is not implemented is refused by its name; nothing is ignored that would change an id.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/added_tokens.h"
#include "tokenizer/pre_tokenizer.h"

namespace hadal::tokenizer {

/// Largest id accepted: bounds what a hostile file can make us allocate.
inline constexpr std::int32_t kMaxTokenId = (1 << 21) - 1;
/// Largest tokenizer.json accepted.
inline constexpr std::uint64_t kMaxTokenizerBytes = std::uint64_t{96} << 20;

struct VocabularyEntry {
  std::string content;  ///< mapped form (spec/interop.md 4.3), or an added token's text
  std::int32_t id = 0;
};

struct MergeEntry {
  std::int32_t left = 0;
  std::int32_t right = 0;
  std::int32_t merged = 0;
};

struct TokenizerDocument {
  PreTokenizerKind pre_tokenizer = PreTokenizerKind::kDeepSeekV3;
  std::vector<VocabularyEntry> vocabulary;  ///< sorted by id, ids unique, not always dense
  std::vector<MergeEntry> merges;           ///< by rank
  std::vector<AddedToken> added_tokens;     ///< sorted by id
  std::int32_t template_bos = -1;           ///< the token that the post-processor puts first, -1 for none
};

/// `name` stands for the file in messages. UserError when the text is not such a document.
TokenizerDocument parse_tokenizer_json(std::string_view json, const std::string& name);
/// One entry a line, so that two tokenizers can be compared with diff.
std::string write_tokenizer_json(const TokenizerDocument& document);

/// Roles named by tokenizer_config.json; an absent or null key is an empty name.
struct TokenizerRoles {
  std::string bos;
  std::string eos;
  std::string pad;
};
TokenizerRoles parse_tokenizer_config(std::string_view json, const std::string& name);
std::string write_tokenizer_config(const TokenizerDocument& document, const TokenizerRoles& roles);

}  // namespace hadal::tokenizer
