// Where things lie in a small HDF5 file: a strict reader of the part of the format that token files use (spec/interop.md 8.6).
//
// The HDF5 library is not trusted with bytes that may be damaged: blind mutations make it crash or read wrongly in silence
// (spec/reliability.md 4). This reader takes superblock 0 (or 1), version 1 object headers, one root group with a symbol
// table, scalar attributes of integers and fixed-size strings, and contiguous 1-D datasets of integers. That is what the
// library writes by default. Everything else is refused by name: filters, chunks, external storage, soft links,
// variable-length and shared types. Every address, length and count is checked against the file before it is used.
//
// Source: the HDF5 file format specification, version 2.0, sections II.A, III.A-D, IV.A.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <variant>

#include "core/file.h"

namespace hadal::data {

/// The first bytes of every HDF5 file, user block aside.
inline constexpr std::string_view kHdf5Signature{"\x89HDF\r\n\x1a\n", 8};

struct Hdf5Attribute {
  std::variant<std::uint64_t, std::int64_t, std::string> value;
  std::uint64_t offset = 0;  ///< of the value's first byte in the file
  std::uint64_t bytes = 0;   ///< of the value in the file
};

struct Hdf5Dataset {
  std::uint64_t count = 0;          ///< elements
  std::uint32_t element_bytes = 0;  ///< unsigned, little-endian
  std::uint64_t offset = 0;         ///< of element 0 in the file; 0 when count is 0
  std::uint64_t bytes() const { return count * element_bytes; }
};

struct Hdf5Structure {
  std::map<std::string, Hdf5Attribute> attributes;  ///< of the root group
  std::map<std::string, Hdf5Dataset> datasets;      ///< of the root group
};

/// Reads the structure of a file whose superblock lies at `superblock_offset`. Every dataset returned lies within the file.
/// DamagedDataError with file, byte offset and reason.
Hdf5Structure read_hdf5_structure(const File& file, std::uint64_t superblock_offset);

}  // namespace hadal::data
