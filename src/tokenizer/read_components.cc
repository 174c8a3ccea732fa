#include "tokenizer/read_components.h"

#include <fmt/core.h>

#include <utility>
#include <vector>

namespace hadal::tokenizer {
namespace {

[[noreturn]] void not_implemented(const JsonReader& reader, std::string_view what) {
  reader.refuse(fmt::format("{} is not implemented (byte-level BPE with the DeepSeek-V3 or GPT-2 pre-tokenizer is)", what));
}

std::string type_of(const JsonReader& reader) { return reader.member("type").string(); }

// A ByteLevel without its two mandatory fields does not load in HF either.
void check_byte_level(const JsonReader& reader, bool prefix_space_matters) {
  reader.only({"type", "add_prefix_space", "trim_offsets", "use_regex"});
  const bool prefix_space = reader.member("add_prefix_space").boolean();
  reader.member("trim_offsets").boolean();
  if (prefix_space && prefix_space_matters) not_implemented(reader, "ByteLevel with add_prefix_space");
}

bool uses_regex(const JsonReader& byte_level) {
  const JsonReader member = byte_level.member("use_regex");
  return member.is_null() || member.boolean();
}

// Escaped line ends in a pattern stand for the literal characters of the released file.
std::string with_literal_line_ends(std::string pattern) {
  for (const auto& [escaped, literal] : {std::pair{"\\r", "\r"}, std::pair{"\\n", "\n"}}) {
    for (std::size_t at = pattern.find(escaped); at != std::string::npos; at = pattern.find(escaped, at + 1)) {
      if (at > 0 && pattern[at - 1] == '\\') continue;
      pattern.replace(at, 2, literal);
    }
  }
  return pattern;
}

std::string read_split_pattern(const JsonReader& reader) {
  if (type_of(reader) != "Split") not_implemented(reader, "pre_tokenizer " + type_of(reader) + " in this place");
  reader.only({"type", "pattern", "behavior", "invert"});
  if (reader.member("behavior").string() != "Isolated") {
    not_implemented(reader, "Split with behavior " + reader.member("behavior").string());
  }
  if (reader.member("invert").boolean()) not_implemented(reader, "Split with invert");
  const JsonReader pattern = reader.member("pattern");
  pattern.only({"Regex", "String"});
  if (!pattern.member("String").is_null()) not_implemented(pattern, "Split on a String");
  return pattern.member("Regex").string();
}

}  // namespace

void check_normalizer(const JsonReader& reader) {
  if (reader.is_null()) return;
  const bool empty_sequence = type_of(reader) == "Sequence" && reader.member("normalizers").array().size() == 0;
  if (!empty_sequence) not_implemented(reader, "normalizer " + type_of(reader));
}

PreTokenizerKind read_pre_tokenizer(const JsonReader& reader) {
  if (reader.is_null()) not_implemented(reader, "no pre_tokenizer");
  const std::string type = type_of(reader);
  if (type == "ByteLevel") {
    check_byte_level(reader, true);
    if (!uses_regex(reader)) not_implemented(reader, "ByteLevel without its regex");
    return PreTokenizerKind::kGpt2;
  }
  if (type != "Sequence") not_implemented(reader, "pre_tokenizer " + type);
  reader.only({"type", "pretokenizers"});
  const JsonReader stages = reader.member("pretokenizers").array();
  const std::vector<std::string>& wanted = stage_patterns(PreTokenizerKind::kDeepSeekV3);
  for (std::size_t i = 0; i + 1 < stages.size(); ++i) {
    const JsonReader stage = stages.element(i);
    const std::string pattern = read_split_pattern(stage);
    if (i >= wanted.size() || with_literal_line_ends(pattern) != wanted[i]) {
      not_implemented(stage, fmt::format("the Split pattern {}", pattern));
    }
  }
  if (stages.size() != wanted.size() + 1) not_implemented(stages, fmt::format("a Sequence of {} stages", stages.size()));
  const JsonReader last = stages.element(wanted.size());
  if (type_of(last) != "ByteLevel") not_implemented(last, "pre_tokenizer " + type_of(last) + " as the last stage");
  check_byte_level(last, true);
  if (uses_regex(last)) not_implemented(last, "ByteLevel with its regex after Split stages");
  return PreTokenizerKind::kDeepSeekV3;
}

std::string read_post_processor(const JsonReader& reader) {
  if (reader.is_null()) return {};
  const std::string type = type_of(reader);
  if (type == "ByteLevel") {
    check_byte_level(reader, false);  // moves offsets only
    return {};
  }
  if (type == "Sequence") {
    const JsonReader processors = reader.member("processors").array();
    std::string first;
    for (std::size_t i = 0; i < processors.size(); ++i) {
      std::string token = read_post_processor(processors.element(i));
      if (!token.empty() && !first.empty()) not_implemented(reader, "more than one token before the text");
      if (!token.empty()) first = std::move(token);
    }
    return first;
  }
  if (type != "TemplateProcessing") not_implemented(reader, "post_processor " + type);
  const JsonReader parts = reader.member("single").array();
  std::string first;
  bool text_seen = false;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const JsonReader part = parts.element(i);
    part.only({"SpecialToken", "Sequence"});
    if (!part.member("Sequence").is_null()) {
      if (text_seen) not_implemented(part, "a template with the text twice");
      text_seen = true;
    } else if (text_seen || !first.empty()) {
      not_implemented(part, "a template with more than one token before the text or any after it");
    } else {
      first = part.member("SpecialToken").member("id").string();
    }
  }
  if (!text_seen) parts.refuse("a template without the text");
  return first;
}

void check_decoder(const JsonReader& reader) {
  if (reader.is_null()) not_implemented(reader, "no decoder");
  if (type_of(reader) != "ByteLevel") not_implemented(reader, "decoder " + type_of(reader));
  check_byte_level(reader, false);
}

}  // namespace hadal::tokenizer
