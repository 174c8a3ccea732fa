#include "config/problems.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstddef>
#include <string_view>

#include "core/error.h"

namespace hadal::config {
namespace {

constexpr std::size_t kMaxShown = 50;
constexpr std::size_t kMaxLine = 160;

/// What a terminal would act upon, and tabs, become one blank each.
std::string printable(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }, ' ');
  return text;
}

/// The source line and a caret below the column; nothing for the command line and for very long lines.
std::string excerpt(const Place& place) {
  if (!place.source || !place.source->is_file || place.line < 1 || place.column < 1) return "";
  std::string_view rest = place.source->text;
  for (int line = 1; line < place.line; ++line) {
    const std::size_t end = rest.find('\n');
    if (end == std::string_view::npos) return "";
    rest.remove_prefix(end + 1);
  }
  std::string line(rest.substr(0, rest.find('\n')));
  if (!line.empty() && line.back() == '\r') line.pop_back();
  if (line.empty() || line.size() > kMaxLine) return "";
  const std::size_t column = std::min(static_cast<std::size_t>(place.column) - 1, line.size());
  return fmt::format("\n    {}\n    {}^", printable(line), std::string(column, ' '));
}

}  // namespace

std::string Place::text() const {
  if (!source) return "default";
  if (!source->is_file) return fmt::format("{}: {}", source->name, source->text);
  return line < 1 ? source->name : fmt::format("{}:{}:{}", source->name, line, column);
}

void Problems::add(const Place& place, const std::string& message) {
  ++count_;
  if (messages_.size() < kMaxShown)
    messages_.push_back(fmt::format("{}: {}{}", printable(place.text()), printable(message), excerpt(place)));
}

void Problems::raise() const {
  std::string text = count_ == 1 ? "" : fmt::format("the configuration has {} errors", count_);
  for (const std::string& message : messages_) {
    if (!text.empty()) text += '\n';
    text += message;
  }
  if (count_ > messages_.size()) text += fmt::format("\n... and {} more", count_ - messages_.size());
  throw UserError("{}", text);
}

}  // namespace hadal::config
