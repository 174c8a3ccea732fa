#include "data/megatron.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <system_error>

#include "core/error.h"
#include "data/edge_hash.h"

namespace hadal::data {
namespace {

constexpr std::array<char, 9> kMagic{'M', 'M', 'I', 'D', 'I', 'D', 'X', 0, 0};
constexpr std::uint64_t kHeaderBytes = 34;  // hence the arrays behind it are unaligned
constexpr std::uint64_t kChunk = 1 << 16;
constexpr std::uint64_t kBufferBytes = 1 << 20;

struct DTypeCode {
  int code;
  std::size_t bytes;
  std::string_view name;
};
constexpr DTypeCode kCodes[] = {{1, 1, "u8"}, {2, 1, "i8"}, {3, 2, "i16"}, {4, 4, "i32"}, {5, 8, "i64"}, {8, 2, "u16"}};

std::filesystem::path bare(const std::filesystem::path& path) {
  const auto extension = path.extension();
  if (extension != ".idx" && extension != ".bin") return path;
  return std::filesystem::path(path).replace_extension();
}

std::filesystem::path with(const std::filesystem::path& prefix, const char* suffix) { return prefix.string() + suffix; }

template <class T>
T load(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

/// Reads `count` values of an array of the index in chunks.
template <class T, class Visit>
void each_value(const File& index, std::uint64_t offset, std::uint64_t count, Visit&& visit) {
  std::vector<T> values;
  for (std::uint64_t done = 0; done < count; done += values.size()) {
    values.resize(std::min(kChunk, count - done));
    index.read_at(offset + done * sizeof(T), std::as_writable_bytes(std::span(values)));
    for (std::size_t i = 0; i < values.size(); ++i) visit(done + i, values[i]);
  }
}

template <class T>
std::int64_t widen(std::span<const std::byte> bytes, std::span<std::int32_t> out) {
  for (std::size_t i = 0; i < out.size(); ++i) {
    const auto value = static_cast<std::int64_t>(load<T>(bytes.data() + i * sizeof(T)));
    if (value < 0 || value > std::numeric_limits<std::int32_t>::max()) return static_cast<std::int64_t>(i);
    out[i] = static_cast<std::int32_t>(value);
  }
  return -1;
}

}  // namespace

bool MegatronSource::exists(const std::filesystem::path& path) {
  return std::filesystem::exists(with(bare(path), ".idx")) && std::filesystem::exists(with(bare(path), ".bin"));
}

MegatronSource::MegatronSource(const std::filesystem::path& prefix)
    : name_(bare(prefix).string()), bin_(File::open_read(with(bare(prefix), ".bin"))) {
  const File index = File::open_read(with(bare(prefix), ".idx"));
  read_index(index);

  Hasher hasher;
  std::vector<std::byte> bytes;
  for (std::uint64_t at = 0; at < index.size(); at += bytes.size()) {
    bytes.resize(std::min(kBufferBytes, index.size() - at));
    index.read_at(at, bytes);
    hasher.update(bytes);
  }
  hash_edges(hasher, bin_);
  fingerprint_ = hasher.digest();
}

void MegatronSource::read_index(const File& index) {
  const std::string path = index.path().string();
  const auto damaged = [&](const std::string& reason) { throw DamagedDataError("{}: {}", path, reason); };
  const std::uint64_t size = index.size();
  std::array<std::byte, kHeaderBytes> header{};
  if (size < kHeaderBytes) throw UserError("{}: not a Megatron index: {} bytes", path, size);
  index.read_at(0, header);
  if (std::memcmp(header.data(), kMagic.data(), kMagic.size()) != 0) throw UserError("{}: not a Megatron index", path);
  if (const auto version = load<std::uint64_t>(header.data() + 9); version != 1)
    damaged(fmt::format("version {} is unknown", version));
  code_ = static_cast<int>(load<std::uint8_t>(header.data() + 17));
  for (const DTypeCode& row : kCodes) {
    if (row.code == code_) token_bytes_ = row.bytes;
  }
  if (token_bytes_ == 0) damaged(fmt::format("dtype code {} is no integer type", code_));
  const auto num_sequences = load<std::uint64_t>(header.data() + 18);
  const auto num_boundaries = load<std::uint64_t>(header.data() + 26);
  if (num_sequences > size / 12 || num_boundaries > size / 8 || num_boundaries == 0) {
    damaged(fmt::format("{} sequences and {} document boundaries do not fit {} bytes", num_sequences, num_boundaries, size));
  }
  const std::uint64_t expected = kHeaderBytes + num_sequences * 12 + num_boundaries * 8;
  if (size != expected && size != expected + num_sequences) {
    damaged(fmt::format("{} bytes, but {} sequences and {} document boundaries take {}", size, num_sequences, num_boundaries,
                        expected));
  }

  // Ends of the sequences in tokens; then the documents', which are runs of sequences.
  std::vector<std::uint64_t> ends;
  ends.reserve(num_sequences);
  std::uint64_t end = 0;
  each_value<std::int32_t>(index, kHeaderBytes, num_sequences, [&](std::uint64_t i, std::int32_t length) {
    if (length < 0) damaged(fmt::format("sequence {} has length {}", i, length));
    ends.push_back(end += static_cast<std::uint64_t>(length));
  });
  each_value<std::int64_t>(index, kHeaderBytes + num_sequences * 4, num_sequences, [&](std::uint64_t i, std::int64_t offset) {
    const std::uint64_t begin = i == 0 ? 0 : ends[i - 1];
    if (offset < 0 || static_cast<std::uint64_t>(offset) != begin * token_bytes_) {
      damaged(fmt::format("sequence {} lies at byte {} of the tokens, not behind the one before it", i, offset));
    }
  });
  std::int64_t before = 0;
  each_value<std::int64_t>(index, kHeaderBytes + num_sequences * 12, num_boundaries, [&](std::uint64_t i, std::int64_t boundary) {
    if (boundary < before || (i == 0 && boundary != 0) || static_cast<std::uint64_t>(boundary) > num_sequences) {
      damaged(fmt::format("document boundary {} is {}", i, boundary));
    }
    if (i > 0) doc_ends_.push_back(boundary == 0 ? 0 : ends[static_cast<std::size_t>(boundary) - 1]);
    before = boundary;
  });
  if (static_cast<std::uint64_t>(before) != num_sequences) damaged("the last document boundary is not the number of sequences");
  if (bin_.size() != end * token_bytes_) {
    throw DamagedDataError("{}: {} bytes, but the index says {} tokens of {}", bin_.path().string(), bin_.size(), end,
                           token_bytes_);
  }
}

std::string_view MegatronSource::dtype_name() const {
  for (const DTypeCode& row : kCodes) {
    if (row.code == code_) return row.name;
  }
  return "";
}

void MegatronSource::read(std::uint64_t begin, std::span<std::int32_t> out) const {
  HADAL_CHECK(begin <= num_tokens() && out.size() <= num_tokens() - begin, "{}: tokens {} + {} of {}", name_, begin, out.size(),
              num_tokens());
  std::vector<std::byte> bytes(out.size() * token_bytes_);
  bin_.read_at(begin * token_bytes_, bytes);
  std::int64_t bad = -1;
  switch (code_) {
    case 1:
      bad = widen<std::uint8_t>(bytes, out);
      break;
    case 2:
      bad = widen<std::int8_t>(bytes, out);
      break;
    case 3:
      bad = widen<std::int16_t>(bytes, out);
      break;
    case 4:
      bad = widen<std::int32_t>(bytes, out);
      break;
    case 5:
      bad = widen<std::int64_t>(bytes, out);
      break;
    default:
      bad = widen<std::uint16_t>(bytes, out);
  }
  if (bad >= 0) {
    throw DamagedDataError("{}: token {} is not in [0, 2^31)", bin_.path().string(), begin + static_cast<std::uint64_t>(bad));
  }
}

void MegatronWriter::discard(const std::filesystem::path& prefix) {
  for (const char* suffix : {".bin.part", ".idx.part", ".idx.part.docs"}) std::filesystem::remove(with(prefix, suffix));
}

MegatronWriter::MegatronWriter(const std::filesystem::path& prefix, std::uint64_t vocab_size, WrittenSoFar kept)
    : prefix_(bare(prefix)),
      vocab_size_(vocab_size),
      token_bytes_(vocab_size < 65500 ? 2 : 4),
      num_tokens_(kept.tokens),
      bin_(File::open_read_write(with(prefix_, ".bin.part"))),
      docs_(with(prefix_, ".idx.part.docs"), kept) {
  if (bin_.size() < num_tokens_ * token_bytes_) {
    throw DamagedDataError("{}: shorter than its journal says; remove the unfinished files to start anew", bin_.path().string());
  }
  bin_.truncate(num_tokens_ * token_bytes_);
}

void MegatronWriter::append(std::span<const std::int32_t> tokens) {
  for (const std::int32_t token : tokens) {
    HADAL_CHECK(token >= 0 && static_cast<std::uint64_t>(token) < vocab_size_, "token id {} of a vocabulary of {}", token,
                vocab_size_);
    // Little-endian: the low bytes come first.
    const auto* bytes = reinterpret_cast<const std::byte*>(&token);
    buffer_.insert(buffer_.end(), bytes, bytes + token_bytes_);
  }
  num_tokens_ += tokens.size();
  if (buffer_.size() >= kBufferBytes) flush();
}

void MegatronWriter::flush() {
  bin_.append(buffer_);
  buffer_.clear();
}

void MegatronWriter::end_document() {
  if (num_tokens_ - docs_.last_end() > static_cast<std::uint64_t>(std::numeric_limits<std::int32_t>::max())) {
    throw UserError("{}: document {} has {} tokens; Megatron's lengths are 32-bit", prefix_.string(), docs_.count(),
                    num_tokens_ - docs_.last_end());
  }
  docs_.add(num_tokens_);
}

void MegatronWriter::sync() {
  docs_.sync();
  flush();
  bin_.sync();
}

void MegatronWriter::finish() {
  HADAL_CHECK(docs_.count() > 0 && docs_.last_end() == num_tokens_, "{} documents, {} of {} tokens ended", docs_.count(),
              docs_.last_end(), num_tokens_);
  sync();
  const auto index_path = with(prefix_, ".idx.part");
  {
    std::filesystem::remove(index_path);
    File index = File::create(index_path);
    std::vector<std::byte> out;
    const auto put = [&](const auto& value) {
      const auto* bytes = reinterpret_cast<const std::byte*>(&value);
      out.insert(out.end(), bytes, bytes + sizeof value);
    };
    const auto write = [&] {
      index.append(out);
      out.clear();
    };
    put(kMagic);
    put(std::uint64_t{1});
    put(static_cast<std::uint8_t>(token_bytes_ == 2 ? 8 : 4));
    put(docs_.count());
    put(docs_.count() + 1);
    std::uint64_t begin = 0;
    docs_.each([&](std::span<const std::uint64_t> ends) {
      for (const std::uint64_t end : ends) {
        put(static_cast<std::int32_t>(end - begin));
        begin = end;
      }
      write();
    });
    begin = 0;
    docs_.each([&](std::span<const std::uint64_t> ends) {
      for (const std::uint64_t end : ends) {
        put(static_cast<std::int64_t>(begin * token_bytes_));
        begin = end;
      }
      write();
    });
    for (std::uint64_t boundary = 0; boundary <= docs_.count(); ++boundary) {
      put(static_cast<std::int64_t>(boundary));
      if (out.size() >= kBufferBytes) write();
    }
    write();
    index.sync();
  }
  // The index last: a pair without one is not taken for a data set.
  for (const auto& [suffix, part] : {std::pair{".bin", ".bin.part"}, std::pair{".idx", ".idx.part"}}) {
    std::error_code error;
    std::filesystem::rename(with(prefix_, part), with(prefix_, suffix), error);
    if (error) throw IoError("{}{}: rename failed: {}", prefix_.string(), part, error.message());
  }
  sync_directory(prefix_.has_parent_path() ? prefix_.parent_path() : std::filesystem::path("."));
  discard(prefix_);
}

}  // namespace hadal::data
