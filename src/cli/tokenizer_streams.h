// Text to ids and back between a file (or stdin) and stdout, a batch of lines at a time.
#pragma once

#include <string>

#include "tokenizer/tokenizer.h"

namespace hadal::cli {

/// What one text of the input is: a line without its end, all of it, or the JSON string that a line holds.
enum class TextUnit { kLine, kWhole, kJsonLine };

/// One line of space-separated ids for each text of `input` ("-" is stdin). The last line of the output ends as the last line
/// of the input does; kWhole always ends it.
void encode_stream(const tokenizer::Tokenizer& tokenizer, const std::string& input, TextUnit unit, bool add_bos);

/// The reverse: one line of text for each line of ids; with `whole` all ids are one text and nothing is added to its bytes.
/// UserError naming the line of an id that is none.
void decode_stream(const tokenizer::Tokenizer& tokenizer, const std::string& input, bool whole);

}  // namespace hadal::cli
