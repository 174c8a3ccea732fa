// The files that a list of paths stands for.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace hadal::data_tools {

enum class TextKind { kPlain, kJsonLines };

struct InputFile {
  std::filesystem::path path;
  TextKind kind = TextKind::kPlain;
  std::uint64_t bytes = 0;  ///< on disk
};

struct InputList {
  std::vector<InputFile> files;
  std::uint64_t bytes = 0;    ///< on disk, of all files
  std::uint64_t skipped = 0;  ///< files of folders that hold no text (a zero byte in their first 4 KiB)
};

/// Files as given, folders walked in byte order of their paths (hidden entries left out, links to folders not followed).
/// .jsonl and .ndjson, also before .gz or .zst, are JSON lines; all else is plain text. UserError when a path does not exist
/// or nothing is left.
InputList list_inputs(const std::vector<std::string>& paths);

}  // namespace hadal::data_tools
