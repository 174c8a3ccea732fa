// One epoch of one source as one long row of tokens: documents in shuffled order, some turned into fill-in-the-middle
// form, joined end to end (spec/model.md 10: packing without a cross-document mask).
//
// Fill-in-the-middle (PSM): a document t_0 .. t_{k-1} [eos] becomes
//   <|fim_begin|> prefix <|fim_hole|> suffix <|fim_end|> middle [eos]
// with two uniform cut points on its k tokens. Exactly round(rate * documents) documents are turned each epoch, others each
// time; so a turned document is 3 tokens longer, every epoch has the same length, and any place of any epoch can be found
// without reading tokens.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "data/permutation.h"
#include "data/token_source.h"

namespace hadal::data {

struct FillInMiddle {
  double rate = 0.0;  ///< share of documents
  std::int32_t begin_id = -1;
  std::int32_t hole_id = -1;
  std::int32_t end_id = -1;
};

class EpochStream {
 public:
  /// Tokens of one epoch: the same for all epochs of a source.
  static std::uint64_t length(const TokenSource& source, const FillInMiddle& fim);

  /// `source_index` tells sources of a blend apart in the random streams. Without `shuffle`, documents keep their order.
  EpochStream(TokenSourcePtr source, const FillInMiddle& fim, bool shuffle, std::uint64_t seed, std::uint64_t source_index,
              std::uint64_t epoch);

  std::uint64_t length() const { return ends_.back(); }
  /// The document at a rank of this epoch's order.
  std::uint64_t document_at(std::uint64_t rank) const;
  bool is_turned(std::uint64_t document) const { return turned_(document) < num_turned_; }

  /// Tokens from `position` on, going back to the start of the epoch after its end. All spans have one length:
  /// ids, their loss mask, and the number of document starts between the first token and each.
  void read(std::uint64_t position, std::span<std::int32_t> tokens, std::span<std::uint8_t> loss_mask,
            std::span<std::int32_t> document_ids) const;

 private:
  void read_document(std::uint64_t document, std::uint64_t begin, std::span<std::int32_t> tokens,
                     std::span<std::uint8_t> loss_mask) const;

  TokenSourcePtr source_;
  FillInMiddle fim_;
  bool shuffle_;
  Permutation order_;
  Permutation turned_;
  std::uint64_t num_turned_;
  Random cuts_;
  std::vector<std::uint64_t> ends_;  ///< by rank: exclusive end of the document in the stream
};

}  // namespace hadal::data
