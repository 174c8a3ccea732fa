// Opens any token format that Hadal reads.
#pragma once

#include <filesystem>

#include "data/token_source.h"

namespace hadal::data {

/// `path` is a token file (interop.md 8.6), a Megatron prefix with or without .idx or .bin (8.1), a datatrove .ds file (8.2) or
/// an llm.c .bin file (8.3). UserError when it is none of them or cannot be read, DamagedDataError when it is not sound.
/// Headerless .bin files are refused: the type of their ids cannot be known.
TokenSourcePtr open_token_source(const std::filesystem::path& path);

}  // namespace hadal::data
