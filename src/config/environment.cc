#include "config/environment.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstdlib>
#include <string_view>

namespace hadal::config {
namespace {

constexpr std::string_view kOpen = "${", kEnv = "${env:", kDefault = ":-";

bool is_name(std::string_view text) {
  const auto letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; };
  const auto digit = [](char c) { return c >= '0' && c <= '9'; };
  return !text.empty() && !digit(text[0]) && std::ranges::all_of(text, [&](char c) { return letter(c) || digit(c); });
}

/// Where `reference` itself stands: further on in the line of its scalar, as long as that is written there to the letter.
Place place_of(std::string_view reference, Place place) {
  if (!place.source) return place;
  const std::string_view text = place.source->text;
  std::size_t begin = 0;
  for (int line = 1; line < place.line && begin != std::string_view::npos; ++line) {
    const std::size_t end = text.find('\n', begin);
    begin = end == std::string_view::npos ? end : end + 1;
  }
  if (begin == std::string_view::npos) return place;
  const std::string_view line = text.substr(begin, text.find('\n', begin) - begin);
  const std::size_t at = line.find(reference, static_cast<std::size_t>(std::max(place.column - 1, 0)));
  if (at != std::string_view::npos) place.column = static_cast<int>(at) + 1;
  return place;
}

/// The value of one reference, "${env:NAME}" or "${env:NAME:-default}"; or nothing, and in `wrong` the reason.
std::string value_of(std::string_view reference, std::string& wrong) {
  std::string_view name = reference.substr(kEnv.size(), reference.size() - kEnv.size() - 1), fallback;
  const std::size_t split = name.find(kDefault);
  const bool has_default = split != std::string_view::npos;
  if (has_default) {
    fallback = name.substr(split + kDefault.size());
    name = name.substr(0, split);
  }
  if (!is_name(name)) {
    wrong = "the name of a variable is letters, digits and _: ${env:NAME} or ${env:NAME:-default}";
    return "";
  }
  const char* value = std::getenv(std::string(name).c_str());
  if (has_default && (value == nullptr || *value == '\0')) value = nullptr;
  if (value == nullptr && !has_default) {
    wrong = fmt::format("the environment has no {}; set it, or give a default: ${{env:{}:-...}}", name, name);
    return "";
  }
  const std::string text = value == nullptr ? std::string(fallback) : value;
  // The resolved configuration is written out and read again.
  if (text.find(kOpen) != std::string::npos) wrong = "its value holds ${ itself; a value is not expanded twice";
  return text;
}

}  // namespace

Expanded expand_environment(const std::string& text, const Place& place, Problems& problems) {
  Expanded expanded;
  std::size_t begin = 0;
  for (std::size_t open = text.find(kOpen); open != std::string::npos; open = text.find(kOpen, begin)) {
    const std::size_t close = text.find('}', open);
    const std::string reference = text.substr(open, close == std::string::npos ? close : close + 1 - open);
    std::string wrong, value;
    if (place.source && place.source->resolved) {
      wrong = "a resolved configuration asks for nothing of the environment";
    } else if (close == std::string::npos) {
      wrong = "has no closing }";
    } else if (!reference.starts_with(kEnv)) {
      wrong = "is not read; a variable of the environment is ${env:NAME}";
    } else {
      value = value_of(reference, wrong);
    }
    if (!wrong.empty()) problems.add(place_of(reference, place), fmt::format("{}: {}", reference, wrong));
    expanded.one_reference = open == 0 && reference.size() == text.size();
    expanded.text += text.substr(begin, open - begin) + value;
    begin = open + reference.size();
  }
  expanded.text += text.substr(begin);
  return expanded;
}

}  // namespace hadal::config
