// What a Tokenizer points at: the vocabulary and the tables for encoding and decoding. Immutable, shared by all copies.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "tokenizer/added_tokens.h"
#include "tokenizer/piece_encoder.h"
#include "tokenizer/pre_tokenizer.h"
#include "tokenizer/tokenizer_document.h"

namespace hadal::tokenizer {

struct TokenizerModel {
  explicit TokenizerModel(TokenizerDocument parsed);

  /// Appends the ids of `text`, valid UTF-8, added tokens recognised.
  void encode(std::string_view text, std::vector<std::int32_t>& ids) const;

  TokenizerDocument document;
  std::string json;    ///< tokenizer.json as read or written
  std::string config;  ///< tokenizer_config.json
  std::string hash;    ///< of json
  std::int32_t bos_id = -1;
  std::int32_t eos_id = -1;
  std::int32_t pad_id = -1;
  std::vector<std::string> bytes;                          ///< by id
  std::vector<bool> special;                               ///< by id
  std::unordered_map<std::string_view, std::int32_t> ids;  ///< contents, views into `document`

 private:
  void encode_plain(std::string_view text, std::vector<std::int32_t>& out) const;

  std::uint64_t serial_;  // of this model among all of the process: owner of piece caches
  AddedTokenMatcher exact_;
  AddedTokenMatcher normalized_;
  PieceEncoder encoder_;
};

}  // namespace hadal::tokenizer
