// The header of a safetensors file (spec/interop.md 1): u64 length, JSON, then packed tensors.
// Parsing checks everything before anything of the tensors' size is allocated.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "core/shape.h"
#include "interop/stored_type.h"

namespace hadal::interop {

struct SafetensorsInfo {
  std::string name;
  StoredType type = StoredType::kF32;
  Shape shape;
  std::uint64_t begin = 0;  ///< byte offset in the file
  std::uint64_t bytes = 0;
};

struct SafetensorsHeader {
  std::vector<SafetensorsInfo> tensors;  ///< in file order
  std::map<std::string, std::string> metadata;
};

inline constexpr std::uint64_t kMaxSafetensorsHeader = 100'000'000;

/// Strict: unknown dtypes, gaps, overlaps, duplicate names or keys, overflowing shapes, names outside [A-Za-z0-9._-]{1,255} and
/// trailing bytes are DamagedDataError with `path` and the reason. `json` is the header text, `file_bytes` the file's size.
SafetensorsHeader parse_safetensors_header(const std::filesystem::path& path, std::string_view json, std::uint64_t file_bytes);

/// Sorts `tensors` canonically (type, then name), sets begin and bytes, and returns the first bytes of the file: length and
/// padded JSON. "format": "pt" is added to the metadata.
std::string make_safetensors_header(std::vector<SafetensorsInfo>& tensors, std::map<std::string, std::string> metadata);

/// True for [A-Za-z0-9._-]{1,255}.
bool is_tensor_name(std::string_view name);

}  // namespace hadal::interop
