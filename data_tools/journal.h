// How far a build came: a small JSON file beside the output, replaced whole.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "data_tools/documents.h"

namespace hadal::data_tools {

struct Journal {
  std::string fingerprint;  ///< of inputs, options and tokenizer: a journal of another build does not count
  std::string created_utc;  ///< when the build began
  std::uint64_t file = 0;   ///< index into the list of inputs
  TextPosition position;    ///< in that file
  std::uint64_t tokens = 0;
  std::uint64_t documents = 0;
  std::uint64_t bytes = 0;
  std::uint64_t replaced = 0;
  double seconds = 0.0;

  /// Nothing when there is none, or one that cannot be read or belongs to another build.
  static std::optional<Journal> load(const std::filesystem::path& path, const std::string& fingerprint);
  void save(const std::filesystem::path& path) const;
};

}  // namespace hadal::data_tools
