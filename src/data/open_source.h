// Opens any token format that Hadal reads.
#pragma once

#include <filesystem>

#include "data/token_source.h"

namespace hadal::data {

/// `path` is a token file (interop.md 8.6) or a Megatron prefix, with or without .idx or .bin.
/// UserError when it is neither or cannot be read, DamagedDataError when it is not sound.
TokenSourcePtr open_token_source(const std::filesystem::path& path);

}  // namespace hadal::data
