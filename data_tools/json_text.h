// The text of one JSON line, found without building the whole document in memory.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace hadal::data_tools {

/// The string under the top-level key `key` of the JSON object in `line`. UserError "FILE:LINE: ..." with the byte offset in
/// the file (`offset` is that of the line) when the line is no JSON object, lacks the key, has it twice or with another type,
/// or is not valid UTF-8 (lone surrogates included).
std::string json_text(std::string_view line, const std::string& key, const std::string& file, std::uint64_t line_number,
                      std::uint64_t offset);

}  // namespace hadal::data_tools
