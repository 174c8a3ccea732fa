// Where tokens go, whatever the format: documents one after another, continued after a kill.
#pragma once

#include <cstdint>
#include <span>

#include "data/document_spool.h"

namespace hadal::data {

class TokenSink {
 public:
  TokenSink() = default;
  virtual ~TokenSink() = default;
  TokenSink(const TokenSink&) = delete;
  TokenSink& operator=(const TokenSink&) = delete;

  /// Tokens of the current document; ids must be in the vocabulary.
  virtual void append(std::span<const std::int32_t> tokens) = 0;
  /// Ends the current document, which must have a token.
  virtual void end_document() = 0;
  virtual WrittenSoFar written() const = 0;
  /// Everything appended so far is on disk when this returns.
  virtual void sync() = 0;
  /// At least one document, all ended. The output is there, whole, when this returns.
  virtual void finish() = 0;
};

}  // namespace hadal::data
