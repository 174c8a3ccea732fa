// A shard file: HDF5 whose own records are made in memory (spec/reliability.md 2, mechanisms 2 and 3), so that h5dump and h5py
// can open it, while Hadal itself writes and reads by offset and never lets HDF5 touch the disk. Contiguous datasets, each at a
// multiple of 4 KiB, named as their tensor; bf16 is stored as u16, f8 as u8.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/tensor.h"

namespace hadal::checkpoint {

struct ShardPiece {
  std::string dataset;  ///< path inside the file; a slash makes a group
  ConstView data;       ///< at least one element
};

/// The bytes of the file, one span after the other. The data's spans are the pieces' own memory: nothing is copied.
struct ShardImage {
  std::vector<std::span<const std::byte>> spans;
  std::uint64_t bytes = 0;
  std::vector<std::uint64_t> offsets;  ///< of each piece's first byte
  std::vector<std::byte> records;      ///< HDF5's own, with the gaps between datasets
};

/// Lets HDF5 lay out the datasets, without their data, opens the result again and compares every dataset's place, type and shape
/// with its source. IoError naming the call that failed.
ShardImage build_shard_image(const std::vector<ShardPiece>& pieces);

}  // namespace hadal::checkpoint
