// A shard file: an HDF5 image built in memory (spec/reliability.md 2, mechanisms 2 and 3), so that h5dump and h5py can open it,
// while Hadal itself reads by offset and never lets HDF5 touch the disk.
// Contiguous datasets, each at a multiple of 4 KiB, named as their tensor; bf16 is stored as u16, f8 as u8.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "core/tensor.h"

namespace hadal::checkpoint {

struct ShardPiece {
  std::string dataset;  ///< path inside the file; a slash makes a group
  ConstView data;       ///< at least one element
};

struct ShardImage {
  std::vector<std::byte> bytes;
  std::vector<std::uint64_t> offsets;  ///< of each piece's first byte
};

/// Builds the image, opens it again and compares every dataset with its source. IoError naming the HDF5 call that failed.
ShardImage build_shard_image(const std::vector<ShardPiece>& pieces);

}  // namespace hadal::checkpoint
