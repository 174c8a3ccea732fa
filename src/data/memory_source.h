// Documents in memory as a token source: for synthetic data and for tests.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/token_source.h"

namespace hadal::data {

class MemorySource final : public TokenSource {
 public:
  MemorySource(const std::vector<std::vector<std::int32_t>>& documents, std::int64_t eos);

  const std::string& name() const override { return name_; }
  std::span<const std::uint64_t> doc_ends() const override { return ends_; }
  void read(std::uint64_t begin, std::span<std::int32_t> out) const override;
  void read_loss_mask(std::uint64_t begin, std::span<std::uint8_t> out) const override;
  bool has_loss_mask() const override { return !mask.empty(); }
  Hash128 fingerprint() const override;
  std::string_view format() const override { return "memory"; }
  std::string_view dtype_name() const override { return "i32"; }
  std::int64_t eos_token_id() const override { return eos_; }
  std::string tokenizer_hash() const override { return tokenizer; }

  std::vector<std::uint8_t> mask;  ///< by token; empty: all count
  std::string tokenizer;

 private:
  std::string name_ = "memory";
  std::int64_t eos_;
  std::vector<std::int32_t> tokens_;
  std::vector<std::uint64_t> ends_;
};

}  // namespace hadal::data
