#include "data/memory_source.h"

#include <algorithm>

#include "core/hash.h"

namespace hadal::data {

MemorySource::MemorySource(const std::vector<std::vector<std::int32_t>>& documents, std::int64_t eos) : eos_(eos) {
  for (const auto& document : documents) {
    tokens_.insert(tokens_.end(), document.begin(), document.end());
    ends_.push_back(tokens_.size());
  }
}

void MemorySource::read(std::uint64_t begin, std::span<std::int32_t> out) const {
  std::copy_n(tokens_.begin() + static_cast<std::ptrdiff_t>(begin), out.size(), out.begin());
}

void MemorySource::read_loss_mask(std::uint64_t begin, std::span<std::uint8_t> out) const {
  if (mask.empty()) return TokenSource::read_loss_mask(begin, out);
  std::copy_n(mask.begin() + static_cast<std::ptrdiff_t>(begin), out.size(), out.begin());
}

Hash128 MemorySource::fingerprint() const { return hash128(std::as_bytes(std::span(tokens_))); }

}  // namespace hadal::data
