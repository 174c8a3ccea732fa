#include "cli/tokenizer_streams.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/log.h"
#include "core/parallel_for.h"

namespace hadal::cli {
namespace {

using tokenizer::Tokenizer;

constexpr std::size_t kBatchBytes = std::size_t{4} << 20;

// Hands out the input in batches that end at a line end, or all of it at once.
class BatchReader {
 public:
  BatchReader(const std::string& input, bool whole) : name_(input == "-" ? "stdin" : input), whole_(whole) {
    descriptor_ = input == "-" ? STDIN_FILENO : ::open(input.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor_ < 0) throw UserError("{}: cannot be read: {}", name_, std::strerror(errno));
  }
  ~BatchReader() {
    if (descriptor_ != STDIN_FILENO) ::close(descriptor_);
  }
  BatchReader(const BatchReader&) = delete;
  BatchReader& operator=(const BatchReader&) = delete;

  /// False at the end of the input.
  bool next(std::string& batch) {
    batch = std::exchange(rest_, {});
    while (!ended_) {
      const std::size_t before = batch.size();
      batch.resize(before + kBatchBytes);
      const ssize_t got = ::read(descriptor_, batch.data() + before, kBatchBytes);
      batch.resize(before + static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0 && errno == EISDIR) throw UserError("{}: a directory, not a file of text", name_);
      if (got < 0) throw IoError("{}: read failed: {}", name_, std::strerror(errno));
      ended_ = got == 0;
      if (ended_ || whole_) continue;
      const std::size_t line_end = batch.rfind('\n');
      if (line_end == std::string::npos) continue;
      rest_ = batch.substr(line_end + 1);
      batch.resize(line_end + 1);
      break;
    }
    return !batch.empty();
  }

  const std::string& name() const { return name_; }

 private:
  std::string name_;
  bool whole_;
  int descriptor_ = -1;
  bool ended_ = false;
  std::string rest_;
};

// Lines without their ends. The end of the last one may be missing.
std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    lines.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return lines;
}

void put(const std::string& text) { std::fwrite(text.data(), 1, text.size(), stdout); }

void append_ids(const std::vector<std::int32_t>& ids, std::string& out) {
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (i > 0) out += ' ';
    const fmt::format_int number(ids[i]);
    out.append(number.data(), number.size());
  }
}

std::vector<std::int32_t> parse_ids(std::string_view text, const std::string& name, std::size_t line) {
  constexpr std::string_view kSpace = " \t\r\n";
  std::vector<std::int32_t> ids;
  for (std::size_t at = text.find_first_not_of(kSpace); at != std::string_view::npos; at = text.find_first_not_of(kSpace, at)) {
    const std::size_t end = std::min(text.find_first_of(kSpace, at), text.size());
    std::int32_t id = -1;
    const auto [stopped, error] = std::from_chars(text.data() + at, text.data() + end, id);
    if (error != std::errc() || stopped != text.data() + end) {
      throw UserError("{}:{}: '{}' is not a token id", name, line, text.substr(at, std::min<std::size_t>(end - at, 40)));
    }
    ids.push_back(id);
    at = end;
  }
  return ids;
}

std::string parse_json_string(std::string_view text, const std::string& name, std::size_t line) {
  const auto value = nlohmann::json::parse(text, nullptr, false);
  if (!value.is_string()) throw UserError("{}:{}: not a JSON string", name, line);
  return value.get<std::string>();
}

}  // namespace

void encode_stream(const Tokenizer& tokenizer, const std::string& input, TextUnit unit, bool add_bos) {
  const bool whole = unit == TextUnit::kWhole;
  BatchReader reader(input, whole);
  const std::vector<std::int32_t> first = tokenizer.encode("", add_bos);
  std::size_t replaced = 0;
  std::size_t line = 0;
  std::string batch;
  while (reader.next(batch)) {
    std::vector<std::string_view> texts = whole ? std::vector<std::string_view>{batch} : lines_of(batch);
    std::vector<std::string> unquoted;
    if (unit == TextUnit::kJsonLine) {
      for (const std::string_view text : texts) unquoted.push_back(parse_json_string(text, reader.name(), ++line));
      texts.assign(unquoted.begin(), unquoted.end());
    }
    std::string out;
    for (const std::vector<std::int32_t>& ids : tokenizer.encode_all(texts, &replaced)) {
      append_ids(first, out);
      if (!first.empty() && !ids.empty()) out += ' ';
      append_ids(ids, out);
      out += '\n';
    }
    if (!whole && batch.back() != '\n') out.pop_back();
    put(out);
  }
  if (replaced > 0) log_warning("{}: {} invalid UTF-8 sequences were read as U+FFFD", reader.name(), replaced);
}

void decode_stream(const Tokenizer& tokenizer, const std::string& input, bool whole) {
  BatchReader reader(input, whole);
  std::size_t line = 0;
  std::string batch;
  while (reader.next(batch)) {
    if (whole) {
      put(tokenizer.decode(parse_ids(batch, reader.name(), 1)));
      continue;
    }
    std::string out;
    for (const std::string_view text : lines_of(batch)) {
      out += tokenizer.decode(parse_ids(text, reader.name(), ++line));
      out += '\n';
    }
    if (batch.back() != '\n') out.pop_back();
    put(out);
  }
}

}  // namespace hadal::cli
