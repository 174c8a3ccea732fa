#include "data/block_stream.h"

#include <algorithm>

#include "core/hash.h"
#include "data/token_format.h"

namespace hadal::data {

BlockStream::BlockStream(File& file, std::uint64_t offset, std::uint64_t bytes_kept) : file_(&file), offset_(offset) {
  block_.reserve(kTokenBlockBytes);
  while (bytes_ < bytes_kept) {
    block_.resize(std::min(kTokenBlockBytes, bytes_kept - bytes_));
    file_->read_at(offset_ + bytes_, block_);
    bytes_ += block_.size();
    if (block_.size() < kTokenBlockBytes) break;
    const Hash128 hash = hash128(block_);
    hashes_.insert(hashes_.end(), {hash.low, hash.high});
    block_.clear();
  }
}

void BlockStream::append(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const std::size_t count = std::min<std::size_t>(bytes.size(), kTokenBlockBytes - block_.size());
    block_.insert(block_.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(count));
    bytes_ += count;
    bytes = bytes.subspan(count);
    if (block_.size() < kTokenBlockBytes) break;
    flush();
    const Hash128 hash = hash128(block_);
    hashes_.insert(hashes_.end(), {hash.low, hash.high});
    block_.clear();
  }
}

void BlockStream::flush() { file_->write_at(offset_ + bytes_ - block_.size(), block_); }

std::vector<std::uint64_t> BlockStream::hashes() const {
  std::vector<std::uint64_t> all = hashes_;
  if (!block_.empty()) {
    const Hash128 hash = hash128(block_);
    all.insert(all.end(), {hash.low, hash.high});
  }
  return all;
}

}  // namespace hadal::data
