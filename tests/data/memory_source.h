// Documents in memory, for tests of what reads any source.
#pragma once

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "core/hash.h"
#include "data/token_source.h"

namespace hadal::test {

class MemorySource : public data::TokenSource {
 public:
  MemorySource(std::vector<std::vector<std::int32_t>> documents, std::int64_t eos) : eos_(eos) {
    for (const auto& document : documents) {
      tokens_.insert(tokens_.end(), document.begin(), document.end());
      ends_.push_back(tokens_.size());
    }
  }

  const std::string& name() const override { return name_; }
  std::span<const std::uint64_t> doc_ends() const override { return ends_; }
  void read(std::uint64_t begin, std::span<std::int32_t> out) const override {
    std::copy_n(tokens_.begin() + static_cast<std::ptrdiff_t>(begin), out.size(), out.begin());
  }
  void read_loss_mask(std::uint64_t begin, std::span<std::uint8_t> out) const override {
    if (mask.empty()) return TokenSource::read_loss_mask(begin, out);
    std::copy_n(mask.begin() + static_cast<std::ptrdiff_t>(begin), out.size(), out.begin());
  }
  Hash128 fingerprint() const override { return hash128(std::as_bytes(std::span(tokens_))); }
  std::string_view format() const override { return "memory"; }
  std::string_view dtype_name() const override { return "i32"; }
  std::int64_t eos_token_id() const override { return eos_; }
  std::string tokenizer_hash() const override { return tokenizer; }

  std::vector<std::uint8_t> mask;
  std::string tokenizer;

 private:
  std::string name_ = "memory";
  std::int64_t eos_;
  std::vector<std::int32_t> tokens_;
  std::vector<std::uint64_t> ends_;
};

/// Documents whose tokens are all different from those of every other document, each ending in token 0 (eos). Token ids
/// start at 10.
inline std::vector<std::vector<std::int32_t>> distinct_documents(std::size_t count, std::size_t longest) {
  std::vector<std::vector<std::int32_t>> documents;
  std::int32_t next = 10;
  for (std::size_t i = 0; i < count; ++i) {
    std::vector<std::int32_t> document(1 + (i * 7919 + 3) % longest);
    for (std::int32_t& token : document) token = next++;
    document.push_back(0);
    documents.push_back(std::move(document));
  }
  return documents;
}

}  // namespace hadal::test
