// A whole pass over a token source: what it holds, and whether every byte is sound.
#pragma once

#include <cstdint>
#include <string>

#include "data/token_source.h"

namespace hadal::data_tools {

struct SourceFigures {
  std::string dtype;  ///< of the stored tokens: "u16", "u32", "i32" ...
  std::int64_t max_id = -1;
  std::uint64_t ending_in_eos = 0;  ///< documents whose last token is `eos`
  std::uint64_t shortest = 0;       ///< tokens of the shortest document
  std::uint64_t longest = 0;
};

/// Reads every token in bounded memory. DamagedDataError as the source's read(). `eos` < 0: none.
SourceFigures inspect(const data::TokenSource& source, std::int64_t eos);

}  // namespace hadal::data_tools
