#include "data/flat_tokens.h"

#include <array>
#include <charconv>
#include <cstring>
#include <utility>

#include "core/error.h"
#include "data/edge_hash.h"

namespace hadal::data {
namespace {

constexpr std::uint64_t kLlmcHeaderBytes = 256 * 4;

struct LlmcKind {
  std::int32_t magic;
  std::int32_t version;
  std::size_t token_bytes;
};
constexpr LlmcKind kLlmcKinds[] = {{20240520, 1, 2}, {20240801, 7, 4}};

std::filesystem::path with(const std::filesystem::path& path, const char* suffix) { return path.string() + suffix; }

/// Bytes a token from the first line of the metadata ("tokenizer|2"); 0 without metadata.
std::size_t metadata_token_bytes(const std::filesystem::path& path) {
  if (!std::filesystem::exists(path)) return 0;
  const std::string text = read_file(path, 1 << 16);
  const std::string line = text.substr(0, text.find('\n'));
  const std::size_t bar = line.rfind('|');
  std::size_t bytes = 0;
  if (bar != std::string::npos) std::from_chars(line.data() + bar + 1, line.data() + line.size(), bytes);
  if (bytes != 2 && bytes != 4) throw DamagedDataError("{}: its first line \"{}\" does not end in |2 or |4", path.string(), line);
  return bytes;
}

std::vector<std::uint64_t> read_ends(const std::filesystem::path& path) {
  const File file = File::open_read(path);
  if (file.size() % 8 != 0 || file.size() == 0)
    throw DamagedDataError("{}: {} bytes are no list of 64-bit ends", path.string(), file.size());
  std::vector<std::uint64_t> ends(file.size() / 8);
  file.read_at(0, std::as_writable_bytes(std::span(ends)));
  for (std::size_t i = 1; i < ends.size(); ++i) {
    if (ends[i] < ends[i - 1]) throw DamagedDataError("{}: document {} ends before it begins", path.string(), i);
  }
  return ends;
}

}  // namespace

FlatTokens::FlatTokens(std::string_view format, File file, std::uint64_t offset, std::size_t token_bytes,
                       std::vector<std::uint64_t> doc_ends, std::optional<File> mask)
    : format_(format),
      name_(file.path().string()),
      file_(std::move(file)),
      offset_(offset),
      token_bytes_(token_bytes),
      doc_ends_(std::move(doc_ends)),
      mask_(std::move(mask)) {
  Hasher hasher;
  hasher.update(std::as_bytes(std::span(doc_ends_)));
  hash_edges(hasher, file_);
  fingerprint_ = hasher.digest();
}

TokenSourcePtr FlatTokens::open_datatrove(const std::filesystem::path& path) {
  File file = File::open_read(path);
  const auto index = with(path, ".index");
  if (!std::filesystem::exists(index))
    throw UserError("{}: there is no {} beside it, so its documents are unknown", path.string(), index.string());
  std::vector<std::uint64_t> ends = read_ends(index);
  const std::uint64_t size = file.size();
  std::size_t token_bytes = metadata_token_bytes(with(path, ".metadata"));
  if (token_bytes == 0) token_bytes = size / 4 == ends.back() ? 4 : 2;
  if (size % token_bytes != 0 || size / token_bytes != ends.back()) {
    throw DamagedDataError("{}: {} bytes, but its index says {} tokens of {} bytes", path.string(), size, ends.back(),
                           token_bytes);
  }
  std::optional<File> mask;
  if (std::filesystem::exists(with(path, ".loss"))) {
    mask = File::open_read(with(path, ".loss"));
    if (mask->size() != ends.back()) {
      throw DamagedDataError("{}: {} bytes for {} tokens", mask->path().string(), mask->size(), ends.back());
    }
  }
  return TokenSourcePtr(new FlatTokens("datatrove", std::move(file), 0, token_bytes, std::move(ends), std::move(mask)));
}

bool FlatTokens::is_llmc(const std::filesystem::path& path) {
  const File file = File::open_read(path);
  std::int32_t magic = 0;
  if (file.size() < kLlmcHeaderBytes) return false;
  file.read_at(0, std::as_writable_bytes(std::span(&magic, 1)));
  for (const LlmcKind& kind : kLlmcKinds) {
    if (kind.magic == magic) return true;
  }
  return false;
}

TokenSourcePtr FlatTokens::open_llmc(const std::filesystem::path& path) {
  File file = File::open_read(path);
  std::array<std::int32_t, 3> header{};
  if (file.size() < kLlmcHeaderBytes) throw UserError("{}: not an llm.c token file: {} bytes", path.string(), file.size());
  file.read_at(0, std::as_writable_bytes(std::span(header)));
  for (const LlmcKind& kind : kLlmcKinds) {
    if (kind.magic != header[0]) continue;
    if (kind.version != header[1])
      throw DamagedDataError("{}: version {} is unknown; {} expected", path.string(), header[1], kind.version);
    const auto count = static_cast<std::uint64_t>(header[2]);
    if (header[2] <= 0 || file.size() != kLlmcHeaderBytes + count * kind.token_bytes) {
      throw DamagedDataError("{}: {} bytes, but its header says {} tokens of {} bytes", path.string(), file.size(), header[2],
                             kind.token_bytes);
    }
    return TokenSourcePtr(new FlatTokens("llm.c", std::move(file), kLlmcHeaderBytes, kind.token_bytes, {count}, std::nullopt));
  }
  throw UserError("{}: not an llm.c token file: magic {}", path.string(), header[0]);
}

void FlatTokens::read(std::uint64_t begin, std::span<std::int32_t> out) const {
  HADAL_CHECK(begin <= num_tokens() && out.size() <= num_tokens() - begin, "{}: tokens {} + {} of {}", name_, begin, out.size(),
              num_tokens());
  std::vector<std::byte> bytes(out.size() * token_bytes_);
  file_.read_at(offset_ + begin * token_bytes_, bytes);
  for (std::size_t i = 0; i < out.size(); ++i) {
    std::uint32_t id = 0;
    std::memcpy(&id, bytes.data() + i * token_bytes_, token_bytes_);
    if (id > 0x7fffffffu) throw DamagedDataError("{}: token {} is not in [0, 2^31)", name_, begin + i);
    out[i] = static_cast<std::int32_t>(id);
  }
}

void FlatTokens::read_loss_mask(std::uint64_t begin, std::span<std::uint8_t> out) const {
  if (!mask_) return TokenSource::read_loss_mask(begin, out);
  mask_->read_at(begin, std::as_writable_bytes(out));
  for (std::uint8_t& value : out) value = value != 0;
}

}  // namespace hadal::data
