// Nearest spelling of a mistyped word, for hints in errors (keys, choices, verbs).
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace hadal::config {

/// The candidate with the fewest edits (insert, delete, replace, swap of neighbours) from `word`; ties: the first.
/// Empty when none is near: more than a third of the letters, rounded up, would have to change.
std::string_view nearest(std::string_view word, std::span<const std::string_view> candidates);

/// " (did you mean X?)", or an empty string when nothing is near.
std::string nearest_hint(std::string_view word, std::span<const std::string_view> candidates);

}  // namespace hadal::config
