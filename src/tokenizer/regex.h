// A compiled PCRE2 pattern (8-bit, UTF and UCP, JIT where the machine has it). Immutable after construction; match state is
// kept per thread.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string_view>

namespace hadal::tokenizer {

struct RegexMatch {
  std::size_t begin = 0;
  std::size_t end = 0;
};

class Regex {
 public:
  /// The pattern is ours: a syntax error is a ContractError.
  explicit Regex(std::string_view pattern);

  /// Leftmost match in `text` at or after `from`. `text` must be valid UTF-8 and `from` on a character boundary.
  std::optional<RegexMatch> find(std::string_view text, std::size_t from) const;

 private:
  struct Compiled;
  std::shared_ptr<const Compiled> compiled_;
};

}  // namespace hadal::tokenizer
