// Text to documents (spec/interop.md 8.7), in pieces of bounded size that can be encoded apart from each other.
//
// A long document is cut where no pre-tokenizer joins text: after a line break between a visible ASCII character and a
// letter, else before a space between two letters. So the ids of the pieces, one after another, are those of the whole.
// The cuts depend on the text alone, so a reader that starts again at a piece's end goes on with the same pieces.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "data_tools/inputs.h"
#include "data_tools/text_stream.h"

namespace hadal::data_tools {

/// What a document of a plain text file is.
struct DocumentRule {
  enum class Kind {
    kFile,        ///< the whole file
    kParagraphs,  ///< text between blank lines
    kSize,        ///< ends at the first line break at or after `bytes` bytes
  };
  Kind kind = Kind::kFile;
  std::uint64_t bytes = 0;

  /// "file", "paragraphs", or a size: "16KiB", "4MiB", "20000". UserError otherwise.
  static DocumentRule parse(const std::string& text);
  std::string text() const;
};

struct DocumentOptions {
  DocumentRule rule;
  std::string text_key = "text";  ///< of a JSON line
};

/// Where a reader stands: enough to go on from there.
struct TextPosition {
  std::uint64_t offset = 0;          ///< in the uncompressed text
  std::uint64_t line = 1;            ///< number of the line that holds `offset`
  std::uint64_t document_bytes = 0;  ///< of an unfinished document before `offset`
};

struct Piece {
  std::string text;  ///< may be empty when it only ends a document
  bool ends_document = false;
  TextPosition begin;
  TextPosition end;
  bool resumable = true;  ///< a reader may start at `end` (false inside a JSON line)
};

class DocumentReader {
 public:
  static constexpr std::size_t kPieceBytes = 256 * 1024;
  static constexpr std::size_t kMaxLineBytes = 64 << 20;

  DocumentReader(const InputFile& file, const DocumentOptions& options, const TextPosition& from = {});
  /// The next piece, or nothing at the end. Blank documents are left out. UserError with file, line and byte offset on a line
  /// that is no JSON object with a string under the text key, or is longer than 64 MiB.
  std::optional<Piece> next();
  std::uint64_t file_position() const { return stream_->file_position(); }

 private:
  /// Makes `bytes` bytes available in text_, or all that are left.
  void fill(std::size_t bytes);
  std::string_view window() const { return std::string_view(text_).substr(start_); }
  Piece take(std::size_t bytes);
  void consume(std::size_t bytes);
  void skip_blank_lines();
  std::optional<Piece> next_plain();
  std::optional<Piece> next_json();
  /// End of the document in the window, or npos when it is not there.
  std::size_t document_end() const;

  InputFile file_;
  DocumentOptions options_;
  std::unique_ptr<TextStream> stream_;
  bool at_end_ = false;
  std::string text_;  ///< read ahead; consumed up to start_
  std::size_t start_ = 0;
  TextPosition position_;
  std::string pending_;  ///< rest of the current JSON document
  std::size_t pending_start_ = 0;
};

/// Position of the best cut of `text` at or before `limit` (0 < limit < text.size()).
std::size_t safe_cut(std::string_view text, std::size_t limit);

}  // namespace hadal::data_tools
