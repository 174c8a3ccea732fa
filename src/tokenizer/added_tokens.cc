#include "tokenizer/added_tokens.h"

#include <algorithm>

#include "core/error.h"

namespace hadal::tokenizer {

AddedTokenMatcher::AddedTokenMatcher(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
  std::sort(tokens_.begin(), tokens_.end(), [](const AddedToken& a, const AddedToken& b) { return a.content < b.content; });
  for (const AddedToken& token : tokens_) {
    HADAL_CHECK(!token.content.empty(), "added token {} is empty", token.id);
    if (first_bytes_.empty() || first_bytes_.back() != token.content[0]) first_bytes_.push_back(token.content[0]);
  }
}

std::optional<AddedTokenMatcher::Match> AddedTokenMatcher::find(std::string_view text, std::size_t from) const {
  if (tokens_.empty()) return std::nullopt;
  for (std::size_t at = text.find_first_of(first_bytes_, from); at != std::string_view::npos;
       at = text.find_first_of(first_bytes_, at + 1)) {
    if (const auto match = match_at(text, at)) return match;
  }
  return std::nullopt;
}

// Narrows the range of tokens that agree with the text byte by byte; a token that ends inside the range is a match, and the
// last such is the longest.
std::optional<AddedTokenMatcher::Match> AddedTokenMatcher::match_at(std::string_view text, std::size_t at) const {
  auto low = tokens_.begin();
  auto high = tokens_.end();
  std::optional<Match> match;
  for (std::size_t depth = 0; low != high; ++depth) {
    if (low->content.size() == depth) {
      match = Match{at, at + depth, low->id};
      ++low;
    }
    if (at + depth >= text.size()) break;
    const auto byte = static_cast<unsigned char>(text[at + depth]);
    const auto byte_of = [depth](const AddedToken& token) { return static_cast<unsigned char>(token.content[depth]); };
    low = std::partition_point(low, high, [&](const AddedToken& token) { return byte_of(token) < byte; });
    high = std::partition_point(low, high, [&](const AddedToken& token) { return byte_of(token) == byte; });
  }
  return match;
}

}  // namespace hadal::tokenizer
