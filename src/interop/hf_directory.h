// The tensors of an HF model directory, whatever the sharding (spec/interop.md 2): one model.safetensors, or an index and shards.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "interop/safetensors.h"

namespace hadal::interop {

class HfDirectory {
 public:
  struct Entry {
    const SafetensorsReader* file = nullptr;
    const SafetensorsInfo* info = nullptr;
  };

  /// UserError when there is neither file nor index; DamagedDataError when index and shards do not agree, everything listed.
  static HfDirectory open(const std::filesystem::path& dir);

  const std::filesystem::path& path() const { return path_; }
  const std::map<std::string, Entry, std::less<>>& entries() const { return entries_; }
  const std::vector<SafetensorsReader>& files() const { return files_; }
  /// nullptr when there is none.
  const Entry* find(std::string_view name) const;
  std::uint64_t tensor_bytes() const;

 private:
  explicit HfDirectory(std::filesystem::path path) : path_(std::move(path)) {}
  void read_index(const std::filesystem::path& index);

  std::filesystem::path path_;
  std::vector<SafetensorsReader> files_;
  std::map<std::string, Entry, std::less<>> entries_;
};

}  // namespace hadal::interop
