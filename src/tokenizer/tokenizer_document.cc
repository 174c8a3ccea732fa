#include "tokenizer/tokenizer_document.h"

#include <fmt/core.h>

#include <algorithm>
#include <optional>
#include <unordered_map>
#include <unordered_set>

#include "core/error.h"
#include "tokenizer/byte_map.h"
#include "tokenizer/json_reader.h"
#include "tokenizer/read_components.h"

namespace hadal::tokenizer {
namespace {

using IdMap = std::unordered_map<std::string_view, std::int32_t>;

constexpr auto by_id = [](const auto& a, const auto& b) { return a.id < b.id; };

void read_vocabulary(const JsonReader& reader, TokenizerDocument& document) {
  document.vocabulary.reserve(reader.object().size());
  reader.for_each_member([&](const std::string& content, const JsonReader& id) {
    document.vocabulary.push_back({content, id.integer(kMaxTokenId)});
  });
  auto& entries = document.vocabulary;
  std::sort(entries.begin(), entries.end(), by_id);
  const auto twice =
      std::adjacent_find(entries.begin(), entries.end(), [](const auto& a, const auto& b) { return a.id == b.id; });
  if (twice != entries.end()) {
    reader.refuse(fmt::format("id {} belongs to both '{}' and '{}'", twice->id, twice->content, (twice + 1)->content));
  }
}

std::int32_t id_or_refuse(const IdMap& ids, std::string_view content, const JsonReader& place) {
  const auto found = ids.find(content);
  if (found == ids.end()) place.refuse(fmt::format("'{}' is not in the vocabulary", content));
  return found->second;
}

void read_merges(const JsonReader& reader, const IdMap& ids, TokenizerDocument& document) {
  document.merges.reserve(reader.array().size());
  std::string joined;
  for (std::size_t i = 0; i < reader.size(); ++i) {
    const JsonReader entry = reader.element(i);
    std::string_view left;
    std::string_view right;
    if (entry.is_string()) {  // the older form "left right"
      const std::string_view text = entry.string();
      if (text.starts_with("#version")) continue;
      const std::size_t space = text.find(' ');
      if (space == std::string_view::npos || text.find(' ', space + 1) != std::string_view::npos) {
        entry.refuse("expected two tokens with one space between them");
      }
      left = text.substr(0, space);
      right = text.substr(space + 1);
    } else {
      if (entry.array().size() != 2) entry.refuse(fmt::format("expected two tokens, found {}", entry.size()));
      left = entry.element(0).string();
      right = entry.element(1).string();
    }
    joined.assign(left).append(right);
    document.merges.push_back(
        {id_or_refuse(ids, left, entry), id_or_refuse(ids, right, entry), id_or_refuse(ids, joined, entry)});
  }
}

void read_model(const JsonReader& reader, TokenizerDocument& document, IdMap& ids) {
  reader.object().only({"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk",
                        "byte_fallback", "ignore_merges", "vocab", "merges"});
  const JsonReader type = reader.member("type");
  if (!type.is_null() && type.string() != "BPE") type.refuse("model " + type.string() + " is not implemented (BPE is)");
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    const JsonReader member = reader.member(key);
    if (!member.is_null() && !member.string().empty()) member.refuse("is not implemented");
  }
  for (const char* key : {"byte_fallback", "ignore_merges"}) {
    const JsonReader member = reader.member(key);
    if (!member.is_null() && member.boolean()) member.refuse("is not implemented");
  }
  const JsonReader dropout = reader.member("dropout");
  if (!dropout.is_null() && dropout.number() != 0.0) dropout.refuse("is not implemented");
  // unk_token and fuse_unk act on characters outside the vocabulary: there are none when all bytes are in it.

  const JsonReader vocab = reader.member("vocab");
  read_vocabulary(vocab, document);
  for (const VocabularyEntry& entry : document.vocabulary) ids.emplace(entry.content, entry.id);
  for (int byte = 0; byte < 256; ++byte) {
    const std::string symbol = map_bytes(std::string(1, static_cast<char>(byte)));
    if (!ids.contains(symbol)) vocab.refuse(fmt::format("no entry '{}' for byte 0x{:02x}", symbol, byte));
  }
  read_merges(reader.member("merges"), ids, document);
}

// HF takes the id of an added token from the vocabulary, or appends it; the id that the file states is ignored. A file where
// they differ means something else to every reader, so it is refused.
void read_added_tokens(const JsonReader& reader, const IdMap& ids, TokenizerDocument& document) {
  if (reader.is_null()) return;
  const auto vocabulary_size = static_cast<std::int32_t>(document.vocabulary.size());
  std::int32_t next = vocabulary_size;
  std::unordered_map<std::int32_t, std::size_t> seen;
  for (std::size_t i = 0; i < reader.array().size(); ++i) {
    const JsonReader entry = reader.element(i);
    entry.object().only({"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"});
    AddedToken token{.id = entry.member("id").integer(kMaxTokenId),
                     .content = entry.member("content").string(),
                     .special = entry.member("special").boolean(),
                     .normalized = entry.member("normalized").boolean()};
    for (const char* key : {"single_word", "lstrip", "rstrip"}) {
      if (entry.member(key).boolean()) entry.member(key).refuse("is not implemented");
    }
    if (token.content.empty()) entry.refuse("an added token without content");
    const auto found = ids.find(token.content);
    const std::int32_t expected = found != ids.end() ? found->second : next;
    if (found == ids.end()) ++next;
    if (token.id != expected) {
      entry.refuse(fmt::format("'{}' states id {}, but its place gives it id {}", token.content, token.id, expected));
    }
    if (!seen.emplace(token.id, i).second) entry.refuse(fmt::format("id {} is given twice", token.id));
    const auto& entries = document.vocabulary;
    const VocabularyEntry appended{{}, token.id};
    if (found == ids.end() && std::binary_search(entries.begin(), entries.end(), appended, by_id)) {
      entry.refuse(fmt::format("id {} belongs to an entry of the vocabulary", token.id));
    }
    document.added_tokens.push_back(std::move(token));
  }
  auto& tokens = document.added_tokens;
  std::sort(tokens.begin(), tokens.end(), by_id);
}

// An added token's text is its own bytes; what merges make of byte symbols is the bytes these stand for. One id cannot be both.
void check_one_meaning(const JsonReader& reader, const TokenizerDocument& document) {
  std::unordered_set<std::int32_t> made;
  for (const MergeEntry& merge : document.merges) made.insert(merge.merged);
  for (const AddedToken& token : document.added_tokens) {
    const std::optional<std::string> bytes = unmap_bytes(token.content);
    const bool symbol = bytes && (bytes->size() == 1 || made.contains(token.id));
    if (symbol && *bytes != token.content) {
      reader.refuse(fmt::format("added token '{}' is also what merges make of other bytes", token.content));
    }
  }
}

}  // namespace

TokenizerDocument parse_tokenizer_json(std::string_view json, const std::string& name) {
  if (json.size() > kMaxTokenizerBytes) {
    throw UserError("{}: {} bytes: no tokenizer is larger than {}", name, json.size(), kMaxTokenizerBytes);
  }
  const JsonReader reader = JsonReader::parse(json, name);
  reader.object().only(
      {"version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder", "model"});
  const JsonReader version = reader.member("version");
  if (!version.is_null() && version.string() != "1.0") version.refuse("version " + version.string() + " is not 1.0");
  for (const char* key : {"truncation", "padding"}) {
    if (!reader.member(key).is_null()) reader.member(key).refuse("is not implemented; null expected");
  }
  TokenizerDocument document;
  check_normalizer(reader.member("normalizer"));
  document.pre_tokenizer = read_pre_tokenizer(reader.member("pre_tokenizer"));
  const std::string first = read_post_processor(reader.member("post_processor"));
  check_decoder(reader.member("decoder"));
  IdMap ids;
  read_model(reader.member("model"), document, ids);
  read_added_tokens(reader.member("added_tokens"), ids, document);
  check_one_meaning(reader.member("added_tokens"), document);
  for (const AddedToken& token : document.added_tokens) ids.emplace(token.content, token.id);
  if (!first.empty()) document.template_bos = id_or_refuse(ids, first, reader.member("post_processor"));
  return document;
}

}  // namespace hadal::tokenizer
