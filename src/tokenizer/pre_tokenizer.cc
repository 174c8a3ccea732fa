#include "tokenizer/pre_tokenizer.h"

#include "core/error.h"
#include "tokenizer/ascii_split.h"
#include "tokenizer/regex.h"
#include "tokenizer/utf8.h"

namespace hadal::tokenizer {
namespace {

// PCRE2's \s holds U+180E, which Unicode no longer calls white space: the class is spelled out.
constexpr std::string_view kSpaceMembers =
    "\\t-\\r \\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}";

// `\s` and `\S` spelled out; inside a class only the members are written (the patterns have no \S there).
std::string with_explicit_space(std::string_view pattern) {
  std::string out;
  bool in_class = false;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] == '\\' && i + 1 < pattern.size()) {
      const char escaped = pattern[++i];
      if (escaped == 's' && in_class) {
        out += kSpaceMembers;
      } else if (escaped == 's' || escaped == 'S') {
        out += escaped == 's' ? "[" : "[^";
        out += kSpaceMembers;
        out += "]";
      } else {
        out += {'\\', escaped};
      }
      continue;
    }
    if (pattern[i] == '[') in_class = true;
    if (pattern[i] == ']') in_class = false;
    out += pattern[i];
  }
  return out;
}

struct Stages {
  explicit Stages(PreTokenizerKind kind) {
    for (const std::string& pattern : stage_patterns(kind)) regexes.emplace_back(with_explicit_space(pattern));
  }
  std::vector<Regex> regexes;
};

const Stages& stages_of(PreTokenizerKind kind) {
  static const Stages deepseek_v3(PreTokenizerKind::kDeepSeekV3);
  static const Stages gpt2(PreTokenizerKind::kGpt2);
  return kind == PreTokenizerKind::kDeepSeekV3 ? deepseek_v3 : gpt2;
}

// Split/Isolated of one subject by stage `stage` and those after it.
void split_stage(const std::vector<Regex>& regexes, std::size_t stage, std::string_view subject,
                 std::vector<std::string_view>& pieces) {
  if (stage == regexes.size()) {
    pieces.push_back(subject);
    return;
  }
  std::size_t done = 0;
  while (done < subject.size()) {
    const auto match = regexes[stage].find(subject, done);
    if (!match) break;
    HADAL_CHECK(match->end > match->begin, "empty match at {}", match->begin);
    if (match->begin > done) split_stage(regexes, stage + 1, subject.substr(done, match->begin - done), pieces);
    split_stage(regexes, stage + 1, subject.substr(match->begin, match->end - match->begin), pieces);
    done = match->end;
  }
  if (done < subject.size()) split_stage(regexes, stage + 1, subject.substr(done), pieces);
}

// Whether the character that ends at `end` > 0 is white space; invalid bytes are not.
bool whitespace_before(std::string_view text, std::size_t end) {
  std::size_t begin = end - 1;
  while (begin > 0 && end - begin < 4 && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) --begin;
  const DecodedCharacter character = decode_character(text.substr(0, end), begin);
  return character.valid && begin + character.size == end && is_whitespace(character.code_point);
}

}  // namespace

std::string_view name_of(PreTokenizerKind kind) { return kind == PreTokenizerKind::kDeepSeekV3 ? "deepseek-v3" : "gpt-2"; }

std::optional<PreTokenizerKind> pre_tokenizer_kind_of(std::string_view name) {
  if (name == "deepseek-v3") return PreTokenizerKind::kDeepSeekV3;
  if (name == "gpt-2") return PreTokenizerKind::kGpt2;
  return std::nullopt;
}

void split_pieces(PreTokenizerKind kind, std::string_view text, std::vector<std::string_view>& pieces) {
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = find_safe_cut(kind, text, begin + 1);
    const std::string_view part = text.substr(begin, end - begin);
    if (!is_ascii(part)) {
      split_pieces_by_regex(kind, part, pieces);
    } else if (kind == PreTokenizerKind::kDeepSeekV3) {
      split_ascii_deepseek_v3(part, pieces);
    } else {
      split_ascii_gpt2(part, pieces);
    }
    begin = end;
  }
}

void split_pieces_by_regex(PreTokenizerKind kind, std::string_view text, std::vector<std::string_view>& pieces) {
  if (!text.empty()) split_stage(stages_of(kind).regexes, 0, text, pieces);
}

// DeepSeek-V3: a run of white space that holds a line end is cut after its last one (`\s*[\r\n]+`, or `[\p{P}\p{S}]+[\r\n]*`),
// so a cut between "\n" and anything but white space moves nothing.
// GPT-2: nothing that starts outside white space enters a run of white space that starts with a line end.
std::size_t find_safe_cut(PreTokenizerKind kind, std::string_view text, std::size_t from) {
  for (std::size_t at = text.find('\n', from > 0 ? from - 1 : 0); at != std::string_view::npos; at = text.find('\n', at + 1)) {
    if (kind == PreTokenizerKind::kDeepSeekV3) {
      const std::size_t cut = at + 1;
      if (cut < from || cut >= text.size()) continue;
      const DecodedCharacter next = decode_character(text, cut);
      if (!next.truncated && !(next.valid && is_whitespace(next.code_point))) return cut;
    } else {
      const std::size_t cut = at > 0 && text[at - 1] == '\r' ? at - 1 : at;
      if (cut == 0 || cut < from) continue;
      if (!whitespace_before(text, cut)) return cut;
    }
  }
  return text.size();
}

const std::vector<std::string>& stage_patterns(PreTokenizerKind kind) {
  static const std::vector<std::string> deepseek_v3 = {
      "\\p{N}{1,3}",
      "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
      "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*"
      "|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
  };
  static const std::vector<std::string> gpt2 = {
      "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
  };
  return kind == PreTokenizerKind::kDeepSeekV3 ? deepseek_v3 : gpt2;
}

}  // namespace hadal::tokenizer
