#include "data_tools/documents.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "core/error.h"
#include "data_tools/json_text.h"

namespace hadal::data_tools {
namespace {

constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
constexpr std::size_t npos = std::string_view::npos;

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool is_visible(char c) { return c > ' ' && c < 0x7f; }
bool is_blank(std::string_view text) { return text.find_first_not_of(" \t\r\n\f\v") == npos; }

}  // namespace

DocumentRule DocumentRule::parse(const std::string& text) {
  if (text == "file") return {Kind::kFile, 0};
  if (text == "paragraphs") return {Kind::kParagraphs, 0};
  std::uint64_t bytes = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), bytes);
  const std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
  const int shift = unit.empty() ? 0 : unit == "KiB" ? 10 : unit == "MiB" ? 20 : unit == "GiB" ? 30 : -1;
  if (error != std::errc() || bytes == 0 || shift < 0 || bytes > (std::uint64_t{1} << 40)) {
    throw UserError("--documents {}: not \"file\", \"paragraphs\" or a size such as 16KiB", text);
  }
  return {Kind::kSize, bytes << shift};
}

std::string DocumentRule::text() const {
  return kind == Kind::kFile ? "file" : kind == Kind::kParagraphs ? "paragraphs" : std::to_string(bytes);
}

std::size_t safe_cut(std::string_view text, std::size_t limit) {
  for (std::size_t i = limit; i >= 2; --i) {
    if (text[i - 1] == '\n' && is_visible(text[i - 2]) && is_letter(text[i])) return i;
  }
  for (std::size_t i = std::min(limit, text.size() - 2); i >= 1; --i) {
    if (text[i] == ' ' && is_letter(text[i - 1]) && is_letter(text[i + 1])) return i;
  }
  // No such place in a whole piece (not prose): between two characters.
  std::size_t i = limit;
  while (i > 1 && (static_cast<unsigned char>(text[i]) & 0xc0) == 0x80) --i;
  return i;
}

DocumentReader::DocumentReader(const InputFile& file, const DocumentOptions& options, const TextPosition& from)
    : file_(file), options_(options), stream_(open_text(file.path)), position_(from) {
  std::uint64_t left = from.offset;
  while (left > 0) {
    text_.resize(std::min<std::uint64_t>(left, 1 << 20));
    const std::size_t got = stream_->read(text_);
    if (got == 0) throw DamagedDataError("{}: shorter than when the build began", file.path.string());
    left -= got;
  }
  text_.clear();
  if (from.offset == 0) {
    fill(kByteOrderMark.size());
    if (window().starts_with(kByteOrderMark)) consume(kByteOrderMark.size());
  }
}

void DocumentReader::fill(std::size_t bytes) {
  if (at_end_ || text_.size() - start_ >= bytes) return;
  text_.erase(0, start_);
  start_ = 0;
  const std::size_t have = text_.size();
  // A little more than asked for, so that short pieces do not read a few bytes each.
  text_.resize(bytes + kPieceBytes);
  const std::size_t got = stream_->read(std::span(text_).subspan(have));
  at_end_ = have + got < text_.size();
  text_.resize(have + got);
}

void DocumentReader::consume(std::size_t bytes) {
  const auto begin = text_.begin() + static_cast<std::ptrdiff_t>(start_);
  position_.line += static_cast<std::uint64_t>(std::count(begin, begin + static_cast<std::ptrdiff_t>(bytes), '\n'));
  position_.offset += bytes;
  start_ += bytes;
}

Piece DocumentReader::take(std::size_t bytes) {
  Piece piece;
  piece.begin = position_;
  piece.text = std::string(window().substr(0, bytes));
  consume(bytes);
  position_.document_bytes += bytes;
  return piece;
}

std::optional<Piece> DocumentReader::next() { return file_.kind == TextKind::kJsonLines ? next_json() : next_plain(); }

void DocumentReader::skip_blank_lines() {
  for (;;) {
    fill(kPieceBytes);
    const std::string_view view = window();
    const std::size_t visible = std::min(view.find_first_not_of(" \t\r\n\f\v"), view.size());
    const std::size_t line_break = visible == 0 ? npos : view.rfind('\n', visible - 1);
    if (visible == view.size()) {
      if (view.empty()) return;
      consume(at_end_ || line_break == npos ? view.size() : line_break + 1);
      continue;
    }
    if (line_break != npos) consume(line_break + 1);
    return;
  }
}

std::size_t DocumentReader::document_end() const {
  // No more than a cut looks at: how far the file was read ahead must not matter.
  const std::string_view view = window().substr(0, kPieceBytes + 1);
  switch (options_.rule.kind) {
    case DocumentRule::Kind::kFile:
      return npos;
    case DocumentRule::Kind::kSize: {
      const std::uint64_t rest = options_.rule.bytes - std::min(options_.rule.bytes, position_.document_bytes + 1);
      if (rest >= view.size()) return npos;
      const std::size_t line_break = view.find('\n', rest);
      return line_break == npos ? npos : line_break + 1;
    }
    case DocumentRule::Kind::kParagraphs:
      for (std::size_t line_break = view.find('\n'); line_break != npos;) {
        const std::size_t next_break = view.find('\n', line_break + 1);
        if (next_break == npos) break;
        if (is_blank(view.substr(line_break + 1, next_break - line_break - 1))) return line_break + 1;
        line_break = next_break;
      }
      return npos;
  }
  return npos;
}

std::optional<Piece> DocumentReader::next_plain() {
  for (;;) {
    const bool starts = position_.document_bytes == 0;
    if (starts && options_.rule.kind == DocumentRule::Kind::kParagraphs) skip_blank_lines();
    // One byte more than a piece, so that a cut can look at the character behind it.
    fill(kPieceBytes + 1);
    const std::string_view view = window();
    if (view.empty() && starts) return std::nullopt;
    const std::size_t document = document_end();
    Piece piece;
    if (document != npos && document <= kPieceBytes) {
      piece = take(document);
      piece.ends_document = true;
    } else if (view.size() > kPieceBytes) {
      piece = take(safe_cut(view.substr(0, kPieceBytes + 1), kPieceBytes));
    } else {
      piece = take(view.size());
      piece.ends_document = true;
    }
    if (piece.ends_document) position_.document_bytes = 0;
    piece.end = position_;
    if (starts && piece.ends_document && is_blank(piece.text)) continue;
    return piece;
  }
}

std::optional<Piece> DocumentReader::next_json() {
  Piece piece;
  piece.begin = position_;
  while (pending_start_ == pending_.size()) {
    fill(kPieceBytes);
    std::size_t line_break = window().find('\n');
    while (line_break == npos && !at_end_) {
      const std::size_t searched = window().size();
      if (searched > kMaxLineBytes) {
        throw UserError("{}:{}: the line at byte {} is longer than {} MiB; split it", file_.path.string(), position_.line,
                        position_.offset, kMaxLineBytes >> 20);
      }
      fill(2 * searched);
      line_break = window().find('\n', searched);
    }
    if (window().empty()) return std::nullopt;
    const std::string_view line = window().substr(0, line_break);
    piece.begin = position_;
    if (!is_blank(line)) {
      pending_ = json_text(line, options_.text_key, file_.path.string(), position_.line, position_.offset);
      pending_start_ = 0;
      if (is_blank(pending_)) pending_.clear();
    }
    consume(line_break == npos ? line.size() : line.size() + 1);
  }
  const std::string_view rest = std::string_view(pending_).substr(pending_start_);
  const std::size_t bytes = rest.size() > kPieceBytes ? safe_cut(rest.substr(0, kPieceBytes + 1), kPieceBytes) : rest.size();
  piece.text = std::string(rest.substr(0, bytes));
  pending_start_ += bytes;
  piece.ends_document = pending_start_ == pending_.size();
  piece.resumable = piece.ends_document;
  piece.end = position_;
  if (piece.ends_document) {
    pending_.clear();
    pending_start_ = 0;
    if (pending_.capacity() > 4 * kPieceBytes) pending_.shrink_to_fit();
  }
  return piece;
}

}  // namespace hadal::data_tools
