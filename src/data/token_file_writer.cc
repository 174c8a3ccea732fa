#include "data/token_file_writer.h"

#include <algorithm>
#include <cstring>
#include <system_error>

#include "core/error.h"
#include "core/hash.h"

namespace hadal::data {
namespace {

std::filesystem::path with_suffix(const std::filesystem::path& path, const char* suffix) { return path.string() + suffix; }

File open_part(const std::filesystem::path& path, WrittenSoFar kept) {
  if (kept.tokens == 0) TokenFileWriter::discard(path);
  return File::open_read_write(with_suffix(path, ".part"));
}

std::uint64_t offset_of(const Hdf5Structure& structure, const char* dataset) { return structure.datasets.at(dataset).offset; }

}  // namespace

TokenFileWriter::TokenFileWriter(const std::filesystem::path& path, const TokenFileInfo& info, bool with_loss_mask,
                                 WrittenSoFar kept)
    : path_(path),
      skeleton_path_(with_suffix(path, ".part.head")),
      info_(info),
      num_tokens_(kept.tokens),
      part_(open_part(path, kept)),
      docs_(with_suffix(path, ".part.docs"), kept) {
  HADAL_CHECK(info_.token_bytes == 2 || info_.token_bytes == 4, "{} bytes a token", info_.token_bytes);
  HADAL_CHECK(info_.vocab_size > 0 && info_.vocab_size <= (info_.token_bytes == 2 ? 65536u : 0x7fffffffu), "vocabulary of {}",
              info_.vocab_size);
  if (info_.source.size() > kMaxSourceBytes)
    throw UserError("{}: the source description is over {} bytes", path.string(), kMaxSourceBytes);
  tokens_offset_ = offset_of(make_skeleton(1, 1, 1, with_loss_mask ? 1 : 0), "tokens");

  const std::uint64_t token_bytes = kept.tokens * info_.token_bytes;
  if (part_.size() < (kept.tokens > 0 ? tokens_offset_ + token_bytes : 0)) {
    throw DamagedDataError("{}.part: shorter than its journal says; remove the unfinished files to start anew", path.string());
  }
  tokens_.emplace(part_, tokens_offset_, token_bytes);
  part_.truncate(tokens_offset_ + token_bytes);
  if (with_loss_mask) {
    mask_file_.emplace(File::open_read_write(with_suffix(path, ".part.mask")));
    mask_.emplace(*mask_file_, 0, kept.tokens);
    mask_file_->truncate(kept.tokens);
  }
}

void TokenFileWriter::discard(const std::filesystem::path& path) {
  for (const char* suffix : {".part", ".part.docs", ".part.mask", ".part.head"})
    std::filesystem::remove(with_suffix(path, suffix));
}

void TokenFileWriter::append(std::span<const std::int32_t> tokens) {
  narrow_.resize(tokens.size() * info_.token_bytes);
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    HADAL_CHECK(tokens[i] >= 0 && static_cast<std::uint64_t>(tokens[i]) < info_.vocab_size, "token id {} of a vocabulary of {}",
                tokens[i], info_.vocab_size);
    if (info_.token_bytes == 2) {
      const auto id = static_cast<std::uint16_t>(tokens[i]);
      std::memcpy(narrow_.data() + 2 * i, &id, 2);
    } else {
      std::memcpy(narrow_.data() + 4 * i, &tokens[i], 4);
    }
  }
  tokens_->append(narrow_);
  if (mask_) mask_->append(std::vector<std::byte>(tokens.size(), std::byte{1}));
  num_tokens_ += tokens.size();
}

void TokenFileWriter::append(std::span<const std::int32_t> tokens, std::span<const std::uint8_t> loss_mask) {
  HADAL_CHECK(mask_ && loss_mask.size() == tokens.size(), "loss mask of {} for {} tokens", loss_mask.size(), tokens.size());
  auto mask = std::move(mask_);
  mask_.reset();
  append(tokens);
  mask_ = std::move(mask);
  mask_->append(std::as_bytes(loss_mask));
}

void TokenFileWriter::end_document() { docs_.add(num_tokens_); }

void TokenFileWriter::sync() {
  docs_.sync();
  tokens_->flush();
  part_.sync();
  if (mask_) {
    mask_->flush();
    mask_file_->sync();
  }
}

std::vector<SkeletonAttribute> TokenFileWriter::attributes() const {
  return {{"format", std::string(kTokenFormat)},
          {"format_version", kTokenFormatVersion},
          {"tokenizer_hash", info_.tokenizer_hash},
          {"tokenizer_name", info_.tokenizer_name},
          {"vocab_size", info_.vocab_size},
          {"eos_token_id", info_.eos_token_id},
          {"dtype", std::string(info_.token_bytes == 2 ? "u16" : "u32")},
          {"n_tokens", num_tokens_},
          {"n_docs", docs_.count()},
          {"created_utc", info_.created_utc},
          {"source", info_.source},
          {"head_hash", std::string(32, '0')},
          {"complete", std::uint8_t{0}}};
}

Hdf5Structure TokenFileWriter::make_skeleton(std::uint64_t tokens, std::uint64_t documents, std::uint64_t blocks,
                                             std::uint64_t mask_blocks) {
  std::vector<SkeletonDataset> datasets{{"tokens", tokens, static_cast<std::uint32_t>(info_.token_bytes)},
                                        {"doc_ends", documents, 8},
                                        {"block_hash", 2 * blocks, 8}};
  if (mask_blocks > 0) {
    datasets.push_back({"loss_mask", tokens, 1});
    datasets.push_back({"loss_mask_hash", 2 * mask_blocks, 8});
  }
  write_hdf5_skeleton(skeleton_path_, attributes(), datasets);
  return read_hdf5_structure(File::open_read(skeleton_path_), kUserBlockBytes);
}

void TokenFileWriter::copy(const File& from, std::uint64_t from_offset, std::uint64_t to_offset, std::uint64_t bytes) {
  std::vector<std::byte> buffer;
  for (std::uint64_t done = 0; done < bytes; done += buffer.size()) {
    buffer.resize(std::min(kTokenBlockBytes, bytes - done));
    from.read_at(from_offset + done, buffer);
    part_.write_at(to_offset + done, buffer);
  }
}

void TokenFileWriter::finish() {
  HADAL_CHECK(docs_.count() > 0 && docs_.last_end() == num_tokens_, "{} documents, {} of {} tokens ended", docs_.count(),
              docs_.last_end(), num_tokens_);
  sync();
  const std::vector<std::uint64_t> hashes = tokens_->hashes();
  const std::vector<std::uint64_t> mask_hashes = mask_ ? mask_->hashes() : std::vector<std::uint64_t>{};
  const Hdf5Structure structure = make_skeleton(num_tokens_, docs_.count(), hashes.size() / 2, mask_hashes.size() / 2);
  HADAL_CHECK_EQ(offset_of(structure, "tokens"), tokens_offset_);

  // Metadata with complete = 0 and the other datasets; then the two fields that say it is whole, as the last writes.
  const File skeleton = File::open_read(skeleton_path_);
  const std::uint64_t file_bytes = skeleton.size();
  std::uint64_t covered = tokens_offset_;
  for (const auto& [name, dataset] : structure.datasets) covered += dataset.bytes();
  HADAL_CHECK_EQ(covered, file_bytes);
  part_.truncate(file_bytes);
  copy(skeleton, kUserBlockBytes, kUserBlockBytes, tokens_offset_ - kUserBlockBytes);
  Hasher hasher;
  hash_attributes(hasher, structure.attributes);
  std::uint64_t doc_ends_at = offset_of(structure, "doc_ends");
  docs_.each([&](std::span<const std::uint64_t> ends) {
    const auto bytes = std::as_bytes(ends);
    part_.write_at(doc_ends_at, bytes);
    hasher.update(bytes);
    doc_ends_at += bytes.size();
  });
  for (const auto& [name, values] : {std::pair{"block_hash", &hashes}, std::pair{"loss_mask_hash", &mask_hashes}}) {
    if (values->empty()) continue;
    part_.write_at(offset_of(structure, name), std::as_bytes(std::span(*values)));
    hasher.update(std::as_bytes(std::span(*values)));
  }
  if (mask_) copy(*mask_file_, 0, offset_of(structure, "loss_mask"), num_tokens_);
  const std::string head_hash = hasher.digest().hex();
  part_.write_at(structure.attributes.at("head_hash").offset, std::as_bytes(std::span(head_hash)));
  part_.sync();

  const std::byte one{1};
  part_.write_at(structure.attributes.at("complete").offset, std::span(&one, 1));
  std::vector<std::byte> metadata(tokens_offset_ - kUserBlockBytes);
  part_.read_at(kUserBlockBytes, metadata);
  part_.write_at(0, make_user_block(tokens_offset_, file_bytes, hash128(metadata)));
  part_.sync();

  std::error_code error;
  std::filesystem::rename(with_suffix(path_, ".part"), path_, error);
  if (error) throw IoError("{}.part: rename to {} failed: {}", path_.string(), path_.string(), error.message());
  sync_directory(path_.has_parent_path() ? path_.parent_path() : std::filesystem::path("."));
  discard(path_);
}

}  // namespace hadal::data
