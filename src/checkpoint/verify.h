// Is every byte as it was committed? Blocks, whole files, logical tensors; each finding is a line that names file and place.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/manifest.h"
#include "checkpoint/tensor_hash.h"

namespace hadal::checkpoint {

/// "FILE: block 3 (bytes 12582912 to 16777216) is damaged".
std::string damaged_block(const std::filesystem::path& dir, const StoredFile& file, std::size_t block);

/// Reads share `share` of `shares` about equal shares of all blocks.
std::vector<std::string> damaged_blocks(const std::filesystem::path& dir, std::span<const StoredFile> files, int share = 0,
                                        int shares = 1);

/// Reads every file once, for its blocks and its whole hash, then every tensor in row-major order.
std::vector<std::string> damage(const std::filesystem::path& dir, const Manifest& manifest, const OnBytes& on_bytes = {});

}  // namespace hadal::checkpoint
