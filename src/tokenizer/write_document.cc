// The writing half of tokenizer_document.h. Text is put together here rather than by the JSON library, which cannot write one
// vocabulary entry a line and the rest compact.
#include <fmt/format.h>

#include <iterator>
#include <unordered_map>

#include "core/error.h"
#include "tokenizer/tokenizer_document.h"

namespace hadal::tokenizer {
namespace {

std::string json_string(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += {'\\', c};
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) {
      fmt::format_to(std::back_inserter(out), "\\u{:04x}", static_cast<unsigned>(c));
    } else {
      out += c;
    }
  }
  return out + "\"";
}

constexpr std::string_view kFlags = "\"single_word\":false,\"lstrip\":false,\"rstrip\":false";

std::string pre_tokenizer_json(PreTokenizerKind kind) {
  const auto byte_level = [](bool use_regex) {
    return fmt::format(R"({{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":{}}})", use_regex);
  };
  if (kind == PreTokenizerKind::kGpt2) return byte_level(true);
  std::string out = "{\"type\":\"Sequence\",\"pretokenizers\":[\n";
  for (const std::string& pattern : stage_patterns(kind)) {
    out += fmt::format("    {{\"type\":\"Split\",\"pattern\":{{\"Regex\":{}}},\"behavior\":\"Isolated\",\"invert\":false}},\n",
                       json_string(pattern));
  }
  return out + "    " + byte_level(false) + "]}";
}

/// Moves offsets only. No template puts bos in front of a text: the documents of token files have none (spec/interop.md 8.6), and a
/// prompt has to look like them wherever the model goes.
constexpr std::string_view kPostProcessor = R"({"type":"ByteLevel","add_prefix_space":true,"trim_offsets":false,"use_regex":true})";

}  // namespace

std::string write_tokenizer_json(const TokenizerDocument& document) {
  std::unordered_map<std::int32_t, std::string_view> contents;
  for (const VocabularyEntry& entry : document.vocabulary) contents.emplace(entry.id, entry.content);
  for (const AddedToken& token : document.added_tokens) contents.emplace(token.id, token.content);
  const auto content_of = [&contents](std::int32_t id) {
    const auto found = contents.find(id);
    HADAL_CHECK(found != contents.end(), "no token {}", id);
    return found->second;
  };

  std::string out = "{\n  \"version\":\"1.0\",\n  \"truncation\":null,\n  \"padding\":null,\n  \"added_tokens\":[";
  auto put = std::back_inserter(out);
  const char* separator = "\n";
  for (const AddedToken& token : document.added_tokens) {
    fmt::format_to(put, "{}    {{\"id\":{},\"content\":{},{},\"normalized\":{},\"special\":{}}}", separator, token.id,
                   json_string(token.content), kFlags, token.normalized, token.special);
    separator = ",\n";
  }
  fmt::format_to(
      put, "],\n  \"normalizer\":null,\n  \"pre_tokenizer\":{},\n  \"post_processor\":{},\n",
      pre_tokenizer_json(document.pre_tokenizer), kPostProcessor);
  out +=
      "  \"decoder\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"trim_offsets\":true,\"use_regex\":true},\n"
      "  \"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":null,\"continuing_subword_prefix\":null,"
      "\"end_of_word_suffix\":null,\n    \"fuse_unk\":false,\"byte_fallback\":false,\"ignore_merges\":false,\n    \"vocab\":{";
  separator = "\n";
  for (const VocabularyEntry& entry : document.vocabulary) {
    fmt::format_to(put, "{}      {}:{}", separator, json_string(entry.content), entry.id);
    separator = ",\n";
  }
  out += "},\n    \"merges\":[";
  separator = "\n";
  for (const MergeEntry& merge : document.merges) {
    fmt::format_to(put, "{}      [{},{}]", separator, json_string(content_of(merge.left)), json_string(content_of(merge.right)));
    separator = ",\n";
  }
  return out + "]}\n}\n";
}

std::string write_tokenizer_config(const TokenizerDocument& document, const TokenizerRoles& roles) {
  std::string out = "{\n  \"tokenizer_class\":\"PreTrainedTokenizerFast\",\n";
  auto put = std::back_inserter(out);
  const auto role = [&put](const char* key, const std::string& token) {
    fmt::format_to(put, "  \"{}\":{},\n", key, token.empty() ? "null" : json_string(token));
  };
  role("bos_token", roles.bos);
  role("eos_token", roles.eos);
  role("pad_token", roles.pad);
  out +=
      "  \"add_bos_token\":false,\n  \"add_eos_token\":false,\n  \"clean_up_tokenization_spaces\":false,\n"
      "  \"model_max_length\":4096,\n  \"added_tokens_decoder\":{";
  const char* separator = "\n";
  for (const AddedToken& token : document.added_tokens) {
    fmt::format_to(put, "{}    \"{}\":{{\"content\":{},{},\"normalized\":{},\"special\":{}}}", separator, token.id,
                   json_string(token.content), kFlags, token.normalized, token.special);
    separator = ",\n";
  }
  return out + "},\n  \"chat_template\":\"{% for m in messages %}{{ m['content'] }}{% endfor %}\"\n}\n";
}

}  // namespace hadal::tokenizer
