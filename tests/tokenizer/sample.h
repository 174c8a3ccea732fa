// A small tokenizer and its text for tests.
#pragma once

#include <cstdint>
#include <string_view>

#include "tokenizer/tokenizer.h"

namespace hadal::tokenizer::test {

std::string_view sample_text();
Tokenizer sample_tokenizer(std::int64_t vocab_size = 400, PreTokenizerKind kind = PreTokenizerKind::kDeepSeekV3);

}  // namespace hadal::tokenizer::test
