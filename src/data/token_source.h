// One interface over every token format: a list of documents, each a run of token ids, readable at any place.
// Implementations are immutable after opening and safe to read from many threads.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "core/hash.h"

namespace hadal::data {

class TokenSource {
 public:
  TokenSource() = default;
  virtual ~TokenSource() = default;
  TokenSource(const TokenSource&) = delete;
  TokenSource& operator=(const TokenSource&) = delete;

  /// Where it came from, for messages ("corpus.h5").
  virtual const std::string& name() const = 0;
  /// Exclusive end of each document in tokens, never decreasing; the last one is num_tokens().
  virtual std::span<const std::uint64_t> doc_ends() const = 0;
  /// Ids of tokens [begin, begin + out.size()). DamagedDataError naming file and block when the bytes are not the written ones.
  virtual void read(std::uint64_t begin, std::span<std::int32_t> out) const = 0;
  /// 1 where a token counts as a target, 0 where it does not; all 1 when the format has no mask.
  virtual void read_loss_mask(std::uint64_t begin, std::span<std::uint8_t> out) const;
  virtual bool has_loss_mask() const { return false; }
  /// Identifies the content: equal contents of equal formats have equal fingerprints, wherever the file lies.
  virtual Hash128 fingerprint() const = 0;

  /// Name of the format, as `hadal data inspect` prints it.
  virtual std::string_view format() const = 0;
  /// Type of a stored token: "u16", "u32", "i32" ...
  virtual std::string_view dtype_name() const = 0;
  /// Ids are below this; 0 when the format does not say.
  virtual std::uint64_t vocab_size() const { return 0; }
  /// -1 when the format does not say or there is none.
  virtual std::int64_t eos_token_id() const { return -1; }
  /// Empty when the format does not say.
  virtual std::string tokenizer_hash() const { return {}; }

  std::uint64_t num_documents() const { return doc_ends().size(); }
  std::uint64_t num_tokens() const { return doc_ends().empty() ? 0 : doc_ends().back(); }
  std::uint64_t document_begin(std::uint64_t document) const { return document == 0 ? 0 : doc_ends()[document - 1]; }
  std::uint64_t document_length(std::uint64_t document) const { return doc_ends()[document] - document_begin(document); }
};

using TokenSourcePtr = std::shared_ptr<const TokenSource>;

}  // namespace hadal::data
