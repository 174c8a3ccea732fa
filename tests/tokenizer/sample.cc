#include "tests/tokenizer/sample.h"

#include "tests/tokenizer/golden_data.h"
#include "tokenizer/train.h"

namespace hadal::tokenizer::test {

std::string_view sample_text() { return golden::kText; }

Tokenizer sample_tokenizer(std::int64_t vocab_size, PreTokenizerKind kind) {
  TrainOptions options;
  options.vocab_size = vocab_size;
  options.pre_tokenizer = kind;
  bool given = false;
  return train(options, [&given]() -> std::optional<std::string> {
    if (std::exchange(given, true)) return std::nullopt;
    return std::string(sample_text());
  });
}

}  // namespace hadal::tokenizer::test
