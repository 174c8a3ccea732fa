// The file half of train.h.
#include <algorithm>
#include <memory>

#include "core/error.h"
#include "core/file.h"
#include "tokenizer/train.h"
#include "tokenizer/utf8.h"

namespace hadal::tokenizer {
namespace {

constexpr std::size_t kPartBytes = std::size_t{2} << 20;
// Text without a place to cut (no line end at all) is cut between characters here, so that memory stays bounded.
constexpr std::size_t kLongestPart = std::size_t{64} << 20;

std::vector<std::filesystem::path> files_of(const std::vector<std::filesystem::path>& paths) {
  std::vector<std::filesystem::path> files;
  for (const auto& path : paths) {
    if (!std::filesystem::is_directory(path)) {
      if (!std::filesystem::exists(path)) throw UserError("{}: no such file or directory", path.string());
      files.push_back(path);
      continue;
    }
    const std::size_t first = files.size();
    for (const auto& entry : std::filesystem::recursive_directory_iterator(path)) {
      if (entry.is_regular_file()) files.push_back(entry.path());
    }
    std::sort(files.begin() + static_cast<std::ptrdiff_t>(first), files.end());
    if (files.size() == first) throw UserError("{}: a directory without files", path.string());
  }
  if (files.empty()) throw UserError("no input: name at least one text file or directory");
  return files;
}

class PartReader {
 public:
  PartReader(std::vector<std::filesystem::path> files, PreTokenizerKind kind) : files_(std::move(files)), kind_(kind) {}

  std::optional<std::string> next() {
    while (true) {
      if (!file_) {
        if (next_file_ == files_.size()) return std::nullopt;
        file_ = std::make_unique<File>(File::open_read(files_[next_file_++]));
        size_ = file_->size();
        offset_ = 0;
      }
      std::string part = next_part();
      if (offset_ == size_ && rest_.empty()) file_.reset();
      if (!part.empty()) return part;
    }
  }

 private:
  // Text up to a safe cut, at least kPartBytes of it when the file has as much.
  std::string next_part() {
    std::string text = std::exchange(rest_, {});
    std::size_t searched = kPartBytes;
    while (true) {
      const auto want = static_cast<std::size_t>(std::min<std::uint64_t>(kPartBytes, size_ - offset_));
      const std::size_t before = text.size();
      text.resize(before + want);
      file_->read_at(offset_, std::as_writable_bytes(std::span(text).subspan(before)));
      offset_ += want;
      if (offset_ == size_ && text.size() <= kPartBytes) return text;
      std::size_t cut = text.size() > searched ? find_safe_cut(kind_, text, searched) : text.size();
      if (cut == text.size()) {
        if (offset_ == size_) return text;
        if (text.size() < kLongestPart) {
          searched = std::max(kPartBytes, text.size() - 16);
          continue;
        }
        cut = complete_prefix(text);
      }
      rest_ = text.substr(cut);
      text.resize(cut);
      return text;
    }
  }

  std::vector<std::filesystem::path> files_;
  PreTokenizerKind kind_;
  std::size_t next_file_ = 0;
  std::unique_ptr<File> file_;
  std::uint64_t size_ = 0;
  std::uint64_t offset_ = 0;
  std::string rest_;
};

}  // namespace

TextSource read_text_files(const std::vector<std::filesystem::path>& paths, PreTokenizerKind kind) {
  const auto reader = std::make_shared<PartReader>(files_of(paths), kind);
  return [reader] { return reader->next(); };
}

}  // namespace hadal::tokenizer
