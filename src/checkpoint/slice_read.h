// Reading slices from pieces, verified: each 4 MiB block of a file that holds something wanted is read once, compared with its
// hash, and only then copied from. Memory: one block for each thread of the process, whatever the tensors' sizes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>

#include "checkpoint/manifest.h"
#include "core/tensor.h"

namespace hadal::checkpoint {

/// Packed elements [first, first + into.numel()) of a slice of a stored tensor.
struct SliceRead {
  const StoredTensor* tensor = nullptr;
  Slice slice;
  View into;  ///< a float dtype that is not the stored one asks for conversion
  std::int64_t first = 0;
};

/// All reads together, so that a block that several of them need is read once. `tensor`s belong to `manifest`. DamagedDataError
/// naming file, block and tensor; what was read before it stays in the views.
void read_slices(const std::filesystem::path& dir, const Manifest& manifest, std::span<const SliceRead> reads);

}  // namespace hadal::checkpoint
