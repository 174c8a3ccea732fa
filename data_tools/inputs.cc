#include "data_tools/inputs.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "core/error.h"
#include "data_tools/text_stream.h"

namespace hadal::data_tools {
namespace {

TextKind kind_of(std::filesystem::path path) {
  if (path.extension() == ".gz" || path.extension() == ".zst") path.replace_extension();
  return path.extension() == ".jsonl" || path.extension() == ".ndjson" ? TextKind::kJsonLines : TextKind::kPlain;
}

bool looks_like_text(const std::filesystem::path& path) {
  std::array<char, 4096> head{};
  const std::size_t count = open_text(path)->read(head);
  return std::string_view(head.data(), count).find('\0') == std::string_view::npos;
}

std::vector<std::filesystem::path> walk(const std::filesystem::path& folder) {
  namespace fs = std::filesystem;
  std::vector<fs::path> files;
  for (fs::recursive_directory_iterator it(folder), end; it != end; ++it) {
    if (it->path().filename().string().starts_with('.')) {
      if (it->is_directory()) it.disable_recursion_pending();
      continue;
    }
    if (it->is_regular_file()) files.push_back(it->path());
  }
  std::ranges::sort(files, {}, [](const fs::path& path) { return path.string(); });
  return files;
}

}  // namespace

InputList list_inputs(const std::vector<std::string>& paths) {
  InputList list;
  const auto add = [&](const std::filesystem::path& path) {
    list.files.push_back({path, kind_of(path), std::filesystem::file_size(path)});
    list.bytes += list.files.back().bytes;
  };
  for (const std::string& given : paths) {
    if (!std::filesystem::exists(given)) throw UserError("--input {}: no such file or folder", given);
    if (!std::filesystem::is_directory(given)) {
      if (!std::filesystem::is_regular_file(given)) throw UserError("--input {}: neither a file nor a folder", given);
      add(given);
      continue;
    }
    for (const auto& path : walk(given)) {
      if (looks_like_text(path)) {
        add(path);
      } else {
        ++list.skipped;
      }
    }
  }
  if (list.files.empty())
    throw UserError("--input: no text files found ({} files skipped since they are not text)", list.skipped);
  return list;
}

}  // namespace hadal::data_tools
