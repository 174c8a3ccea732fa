// The components of tokenizer.json around the model: which of them are known, and what they mean (spec/interop.md 4.1).
#pragma once

#include <string>

#include "tokenizer/json_reader.h"
#include "tokenizer/pre_tokenizer.h"

namespace hadal::tokenizer {

/// null, or an empty Sequence: anything else would change the text.
void check_normalizer(const JsonReader& reader);
PreTokenizerKind read_pre_tokenizer(const JsonReader& reader);
/// Content of the token that goes before the text; empty for none.
std::string read_post_processor(const JsonReader& reader);
void check_decoder(const JsonReader& reader);

}  // namespace hadal::tokenizer
