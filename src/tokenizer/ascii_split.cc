#include "tokenizer/ascii_split.h"

#include <array>
#include <cstddef>
#include <cstdint>

namespace hadal::tokenizer {
namespace {

enum Class : std::uint8_t { kControl, kSpace, kLineEnd, kLetter, kDigit, kMark };  // kMark: \p{P} and \p{S}

constexpr std::array<Class, 256> make_classes() {
  std::array<Class, 256> classes{};
  for (int c = 0x21; c < 0x7F; ++c) classes[static_cast<std::size_t>(c)] = kMark;
  for (int c = '0'; c <= '9'; ++c) classes[static_cast<std::size_t>(c)] = kDigit;
  for (int c = 'a'; c <= 'z'; ++c) classes[static_cast<std::size_t>(c)] = classes[static_cast<std::size_t>(c - 32)] = kLetter;
  classes['\t'] = classes['\v'] = classes['\f'] = classes[' '] = kSpace;
  classes['\r'] = classes['\n'] = kLineEnd;
  return classes;
}
constexpr std::array<Class, 256> kClasses = make_classes();

Class class_of(char c) { return kClasses[static_cast<unsigned char>(c)]; }
bool is_space(char c) { return class_of(c) == kSpace || class_of(c) == kLineEnd; }

// First position from `at` whose class is another.
const char* skip(const char* at, const char* end, Class which) {
  while (at < end && class_of(*at) == which) ++at;
  return at;
}

const char* skip_space(const char* at, const char* end) {
  while (at < end && is_space(*at)) ++at;
  return at;
}

// End of the match of `\s+(?!\S)|\s+` at white space: the run, less its last character when something follows that it could
// belong to.
const char* end_of_space(const char* at, const char* end) {
  const char* run_end = skip_space(at, end);
  return run_end == end || run_end - at == 1 ? run_end : run_end - 1;
}

// Stage 3 of DeepSeek-V3 at `at`, in a subject without digits: end of the match that begins here, or nullptr for none.
const char* match_deepseek_v3(const char* at, const char* end) {
  const Class first = class_of(*at);
  const Class second = at + 1 < end ? class_of(at[1]) : kControl;
  switch (first) {
    case kLetter:
      return skip(at, end, kLetter);
    case kMark:
      if (second == kLetter) return skip(at + 1, end, kLetter);
      return skip(skip(at, end, kMark), end, kLineEnd);
    case kSpace:
      if (second == kLetter) return skip(at + 1, end, kLetter);
      if (*at == ' ' && second == kMark) return skip(skip(at + 1, end, kMark), end, kLineEnd);
      break;
    case kControl:
      return second == kLetter ? skip(at + 1, end, kLetter) : nullptr;
    case kLineEnd:
    case kDigit:
      break;
  }
  // `\s*[\r\n]+`: up to the last line end of the run.
  const char* run_end = skip_space(at, end);
  for (const char* last = run_end; last > at; --last) {
    if (class_of(last[-1]) == kLineEnd) return last;
  }
  return end_of_space(at, end);
}

// `'s|'t|'re|'ve|'m|'ll|'d` at an apostrophe: length of the match, 0 for none.
std::ptrdiff_t contraction(const char* at, const char* end) {
  if (end - at < 2) return 0;
  const char first = at[1];
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return 2;
  if (end - at < 3) return 0;
  const char second = at[2];
  const bool three = (first == 'r' && second == 'e') || (first == 'v' && second == 'e') || (first == 'l' && second == 'l');
  return three ? 3 : 0;
}

const char* match_gpt2(const char* at, const char* end) {
  if (*at == '\'') {
    if (const std::ptrdiff_t length = contraction(at, end); length > 0) return at + length;
  }
  const char* body = *at == ' ' && at + 1 < end && !is_space(at[1]) ? at + 1 : at;
  switch (class_of(*body)) {
    case kLetter:
      return skip(body, end, kLetter);
    case kDigit:
      return skip(body, end, kDigit);
    case kMark:
    case kControl:
      while (body < end && (class_of(*body) == kMark || class_of(*body) == kControl)) ++body;
      return body;
    case kSpace:
    case kLineEnd:
      break;
  }
  return end_of_space(at, end);
}

std::string_view view(const char* begin, const char* end) { return {begin, static_cast<std::size_t>(end - begin)}; }

}  // namespace

void split_ascii_deepseek_v3(std::string_view text, std::vector<std::string_view>& pieces) {
  const char* const end = text.data() + text.size();
  for (const char* at = text.data(); at < end;) {
    if (class_of(*at) == kDigit) {  // stage 1: three by three
      const char* stop = at + 1;
      while (stop < end && stop - at < 3 && class_of(*stop) == kDigit) ++stop;
      pieces.push_back(view(at, stop));
      at = stop;
      continue;
    }
    const char* subject_end = at;
    while (subject_end < end && class_of(*subject_end) != kDigit) ++subject_end;
    const char* gap = at;  // of what no alternative matches
    while (at < subject_end) {
      const char* stop = match_deepseek_v3(at, subject_end);
      if (stop == nullptr) {
        ++at;
        continue;
      }
      if (gap < at) pieces.push_back(view(gap, at));
      pieces.push_back(view(at, stop));
      gap = at = stop;
    }
    if (gap < at) pieces.push_back(view(gap, at));
  }
}

void split_ascii_gpt2(std::string_view text, std::vector<std::string_view>& pieces) {
  const char* const end = text.data() + text.size();
  for (const char* at = text.data(); at < end;) {
    const char* stop = match_gpt2(at, end);
    pieces.push_back(view(at, stop));
    at = stop;
  }
}

}  // namespace hadal::tokenizer
