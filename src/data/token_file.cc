#include "data/token_file.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "core/error.h"

namespace hadal::data {
namespace {

bool starts_with(const File& file, std::uint64_t offset, std::string_view magic) {
  std::string bytes(magic.size(), '\0');
  if (file.size() < offset + bytes.size()) return false;
  file.read_at(offset, std::as_writable_bytes(std::span(bytes)));
  return bytes == magic;
}

template <class T>
bool any_at_least(std::span<const std::byte> bytes, std::uint64_t bound) {
  T largest = 0;
  for (std::size_t i = 0; i + sizeof(T) <= bytes.size(); i += sizeof(T)) {
    T value;
    std::memcpy(&value, bytes.data() + i, sizeof(T));
    largest = std::max(largest, value);
  }
  return largest >= bound;
}

template <class T>
void widen(std::span<const std::byte> bytes, std::int32_t* out) {
  for (std::size_t i = 0; i < bytes.size() / sizeof(T); ++i) {
    T value;
    std::memcpy(&value, bytes.data() + i * sizeof(T), sizeof(T));
    out[i] = static_cast<std::int32_t>(value);
  }
}

}  // namespace

TokenFile::TokenFile(const std::filesystem::path& path)
    : name_(path.string()), file_(File::open_read(path)), modified_ns_(file_.modified_ns()) {
  const bool has_user_block = starts_with(file_, 0, kUserBlockMagic) || starts_with(file_, kUserBlockBytes, kHdf5Signature);
  if (!has_user_block && !starts_with(file_, 0, kHdf5Signature)) {
    throw UserError("{}: not a token file: it has no HDF5 signature (write one with `hadal data build`)", name_);
  }
  const std::uint64_t metadata_end = has_user_block ? check_user_block() : 0;
  const Hdf5Structure structure = read_hdf5_structure(file_, has_user_block ? kUserBlockBytes : 0);
  read_attributes(structure);

  const auto tokens = structure.datasets.find("tokens");
  if (tokens == structure.datasets.end()) damaged("dataset /tokens is missing");
  if (tokens->second.element_bytes != info_.token_bytes)
    damaged("/tokens has another element size than the attribute dtype says");
  if (tokens->second.count != num_tokens_) damaged("/tokens has another length than the attribute n_tokens says");
  tokens_ = {"tokens", tokens->second.offset, num_tokens_, info_.token_bytes, {}, {}};

  const auto num_docs = std::get<std::uint64_t>(structure.attributes.at("n_docs").value);
  doc_ends_ = read_u64(structure, "doc_ends", num_docs);
  tokens_.hashes = read_u64(structure, "block_hash", 2 * num_token_blocks(tokens_.bytes()));
  if (const auto mask = structure.datasets.find("loss_mask"); mask != structure.datasets.end()) {
    if (mask->second.count != num_tokens_ || mask->second.element_bytes != 1) damaged("/loss_mask is not one byte a token");
    mask_ = {"loss mask", mask->second.offset, num_tokens_, 1, {}, {}};
    mask_.hashes = read_u64(structure, "loss_mask_hash", 2 * num_token_blocks(mask_.bytes()));
  }
  if (has_user_block) {
    // The datasets must fill the rest of the file, so that no byte is outside every hash.
    std::uint64_t covered = 0;
    for (const auto& [dataset_name, dataset] : structure.datasets) covered += dataset.bytes();
    if (covered != file_.size() - metadata_end) damaged("the datasets do not fill the file");
  }

  Hasher hasher;
  hash_attributes(hasher, structure.attributes);
  for (const auto* array : {&doc_ends_, &tokens_.hashes, &mask_.hashes}) hasher.update(std::as_bytes(std::span(*array)));
  head_hash_ = hasher.digest();
  const auto* stored = std::get_if<std::string>(&structure.attributes.at("head_hash").value);
  if (stored == nullptr || *stored != head_hash_.hex())
    damaged("head_hash does not match the attributes, /doc_ends and /block_hash");

  std::uint64_t before = 0;
  for (std::size_t i = 0; i < doc_ends_.size(); ++i) {
    if (doc_ends_[i] <= before || doc_ends_[i] > num_tokens_) damaged(fmt::format("/doc_ends does not grow at document {}", i));
    before = doc_ends_[i];
  }
  if (before != num_tokens_) damaged("/doc_ends does not end at n_tokens");
  for (Blocks* blocks : {&tokens_, &mask_}) {
    blocks->verified = std::make_unique<std::atomic<std::uint8_t>[]>(blocks->hashes.size() / 2);
  }
}

void TokenFile::damaged(const std::string& reason) const { throw DamagedDataError("{}: {}", name_, reason); }

std::uint64_t TokenFile::check_user_block() const {
  if (file_.size() < kUserBlockBytes) damaged(fmt::format("truncated: {} bytes", file_.size()));
  std::array<std::byte, kUserBlockBytes> block{};
  file_.read_at(0, block);
  std::uint64_t metadata_end = 0;
  std::uint64_t file_bytes = 0;
  std::memcpy(&metadata_end, block.data() + 16, 8);
  std::memcpy(&file_bytes, block.data() + 24, 8);
  const auto is_blank = std::ranges::all_of(block, [](std::byte b) { return b == std::byte{0}; });
  if (is_blank) damaged("incomplete: it was never finished (run `hadal data build` again)");
  if (file_bytes != file_.size())
    damaged(fmt::format("truncated or altered: {} bytes, written with {}", file_.size(), file_bytes));
  if (metadata_end < kUserBlockBytes || metadata_end > file_bytes || metadata_end > (std::uint64_t{1} << 20)) {
    damaged("the user block (bytes 0 to 511) is altered");
  }
  std::vector<std::byte> metadata(metadata_end - kUserBlockBytes);
  file_.read_at(kUserBlockBytes, metadata);
  if (block != make_user_block(metadata_end, file_bytes, hash128(metadata))) {
    damaged(fmt::format("the metadata (bytes 0 to {}) is altered: its hash does not match", metadata_end - 1));
  }
  return metadata_end;
}

void TokenFile::read_attributes(const Hdf5Structure& structure) {
  const auto find = [&](const char* name) -> const Hdf5Attribute& {
    const auto found = structure.attributes.find(name);
    if (found == structure.attributes.end()) damaged(fmt::format("attribute {} is missing", name));
    return found->second;
  };
  const auto text = [&](const char* name) -> const std::string& {
    const auto* value = std::get_if<std::string>(&find(name).value);
    if (value == nullptr) damaged(fmt::format("attribute {} is not a string", name));
    return *value;
  };
  const auto number = [&](const char* name) {
    const auto* value = std::get_if<std::uint64_t>(&find(name).value);
    if (value == nullptr) damaged(fmt::format("attribute {} is not an unsigned integer", name));
    return *value;
  };
  if (text("format") != kTokenFormat)
    damaged(fmt::format("attribute format is \"{}\", not \"{}\"", text("format"), kTokenFormat));
  if (number("format_version") != kTokenFormatVersion)
    damaged(fmt::format("format_version {} is unknown", number("format_version")));
  if (number("complete") != 1) damaged("incomplete: attribute complete is not 1 (run `hadal data build` again)");
  const std::string& dtype = text("dtype");
  if (dtype != "u16" && dtype != "u32") damaged(fmt::format("dtype \"{}\" is neither u16 nor u32", dtype));
  info_.token_bytes = dtype == "u16" ? 2 : 4;
  info_.tokenizer_hash = text("tokenizer_hash");
  info_.tokenizer_name = text("tokenizer_name");
  info_.created_utc = text("created_utc");
  info_.source = text("source");
  info_.vocab_size = number("vocab_size");
  if (info_.vocab_size == 0 || info_.vocab_size > 0x7fffffff)
    damaged(fmt::format("vocab_size {} is not usable", info_.vocab_size));
  const auto* eos = std::get_if<std::int64_t>(&find("eos_token_id").value);
  if (eos == nullptr || *eos < -1 || *eos >= static_cast<std::int64_t>(info_.vocab_size))
    damaged("eos_token_id is outside the vocabulary");
  info_.eos_token_id = *eos;
  num_tokens_ = number("n_tokens");
  number("n_docs");
  text("head_hash");
}

std::vector<std::uint64_t> TokenFile::read_u64(const Hdf5Structure& structure, const char* name, std::uint64_t count) const {
  const auto found = structure.datasets.find(name);
  if (found == structure.datasets.end()) damaged(fmt::format("dataset /{} is missing", name));
  if (found->second.element_bytes != 8 || found->second.count != count) {
    damaged(fmt::format("/{} has {} elements of {} bytes; {} of 8 expected", name, found->second.count,
                        found->second.element_bytes, count));
  }
  std::vector<std::uint64_t> values(count);
  if (count > 0) file_.read_at(found->second.offset, std::as_writable_bytes(std::span(values)));
  return values;
}

void TokenFile::check_ids(std::span<const std::byte> bytes, std::uint64_t first_token) const {
  const bool bad = info_.token_bytes == 2 ? any_at_least<std::uint16_t>(bytes, info_.vocab_size)
                                          : any_at_least<std::uint32_t>(bytes, info_.vocab_size);
  if (!bad) return;
  for (std::uint64_t i = 0;; ++i) {
    std::uint32_t id = 0;
    std::memcpy(&id, bytes.data() + i * info_.token_bytes, info_.token_bytes);
    if (id < info_.vocab_size) continue;
    damaged(fmt::format("token {} is {}, but the vocabulary has {} entries", first_token + i, id, info_.vocab_size));
  }
}

void TokenFile::verify_block(const Blocks& blocks, std::uint64_t block) const {
  const std::uint64_t begin = block * kTokenBlockBytes;
  std::vector<std::byte> bytes(std::min(kTokenBlockBytes, blocks.bytes() - begin));
  file_.read_at(blocks.offset + begin, bytes);
  if (hash128(bytes) != Hash128{blocks.hashes[2 * block], blocks.hashes[2 * block + 1]}) {
    damaged(fmt::format("{} block {} (bytes {} to {} of the file) is damaged: its hash does not match", blocks.what, block,
                        blocks.offset + begin, blocks.offset + begin + bytes.size() - 1));
  }
  if (&blocks == &tokens_) check_ids(bytes, begin / blocks.element_bytes);
  blocks.verified[block].store(1, std::memory_order_release);
}

void TokenFile::forget_when_modified() const {
  const std::int64_t now = file_.modified_ns();
  if (now == modified_ns_.load(std::memory_order_acquire)) return;
  for (const Blocks* blocks : {&tokens_, &mask_}) {
    for (std::size_t block = 0; block < blocks->hashes.size() / 2; ++block)
      blocks->verified[block].store(0, std::memory_order_release);
  }
  modified_ns_.store(now, std::memory_order_release);
}

void TokenFile::read_bytes(const Blocks& blocks, std::uint64_t begin, std::span<std::byte> out) const {
  HADAL_CHECK(begin <= blocks.count && out.size() / blocks.element_bytes <= blocks.count - begin, "{}: tokens {} + {} of {}",
              name_, begin, out.size() / blocks.element_bytes, blocks.count);
  if (out.empty()) return;
  forget_when_modified();
  const std::uint64_t first_byte = begin * blocks.element_bytes;
  const std::uint64_t last_block = (first_byte + out.size() - 1) / kTokenBlockBytes;
  for (std::uint64_t block = first_byte / kTokenBlockBytes; block <= last_block; ++block) {
    if (blocks.verified[block].load(std::memory_order_acquire) == 0) verify_block(blocks, block);
  }
  file_.read_at(blocks.offset + first_byte, out);
}

void TokenFile::read(std::uint64_t begin, std::span<std::int32_t> out) const {
  std::vector<std::byte> bytes(out.size() * info_.token_bytes);
  read_bytes(tokens_, begin, bytes);
  // Again, since the bytes were read again: a file rewritten during a run must not index past the embedding.
  check_ids(bytes, begin);
  if (info_.token_bytes == 2) {
    widen<std::uint16_t>(bytes, out.data());
  } else {
    widen<std::uint32_t>(bytes, out.data());
  }
}

void TokenFile::read_loss_mask(std::uint64_t begin, std::span<std::uint8_t> out) const {
  if (!has_loss_mask()) return TokenSource::read_loss_mask(begin, out);
  read_bytes(mask_, begin, std::as_writable_bytes(out));
  for (std::uint8_t& value : out) value = value != 0;
}

void TokenFile::verify_all() const {
  for (const Blocks* blocks : {&tokens_, &mask_}) {
    for (std::uint64_t block = 0; block < blocks->hashes.size() / 2; ++block) verify_block(*blocks, block);
  }
}

}  // namespace hadal::data
