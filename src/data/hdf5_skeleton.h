// The frame of an HDF5 file: superblock, root attributes and contiguous datasets with their space reserved but not written.
// The caller fills the datasets with plain positional writes at the offsets that `read_hdf5_structure` gives, so that
// gigabytes never pass through the HDF5 library.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <variant>
#include <vector>

namespace hadal::data {

/// The file starts with this many bytes that belong to the caller (an HDF5 user block); zero until written.
inline constexpr std::uint64_t kUserBlockBytes = 512;

struct SkeletonAttribute {
  std::string name;
  /// u8, u32, u64, i64 or a fixed-size UTF-8 string.
  std::variant<std::uint8_t, std::uint32_t, std::uint64_t, std::int64_t, std::string> value;
};

struct SkeletonDataset {
  std::string name;
  std::uint64_t count = 0;          ///< elements of a 1-D dataset
  std::uint32_t element_bytes = 0;  ///< 1, 2, 4 or 8: unsigned, little-endian
};

/// Writes a new file at `path` (replacing one), a sparse one where the file system can. The datasets lie behind all
/// metadata, in the given order, without gaps, up to the end of the file. The bytes written depend on the arguments alone.
void write_hdf5_skeleton(const std::filesystem::path& path, const std::vector<SkeletonAttribute>& attributes,
                         const std::vector<SkeletonDataset>& datasets);

/// Version of the HDF5 library in use, "1.10.8".
std::string hdf5_version();

}  // namespace hadal::data
