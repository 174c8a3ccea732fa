#include "data/epoch_stream.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "core/error.h"

namespace hadal::data {
namespace {

constexpr std::uint64_t kExtraTokens = 3;

std::uint64_t count_turned(const TokenSource& source, const FillInMiddle& fim) {
  return static_cast<std::uint64_t>(std::llround(fim.rate * static_cast<double>(source.num_documents())));
}

/// Stream id of (source, epoch, use): 4 uses.
std::uint64_t stream_id(std::uint64_t source_index, std::uint64_t epoch, std::uint64_t use) {
  return source_index << 48 ^ epoch << 2 ^ use;
}

/// A piece of a document's new form: tokens of the source, or one given id.
struct Piece {
  std::uint64_t begin = 0;
  std::uint64_t count = 0;
  std::int32_t id = -1;  ///< >= 0: this one token
};

}  // namespace

std::uint64_t EpochStream::length(const TokenSource& source, const FillInMiddle& fim) {
  return source.num_tokens() + kExtraTokens * count_turned(source, fim);
}

EpochStream::EpochStream(TokenSourcePtr source, const FillInMiddle& fim, bool shuffle, std::uint64_t seed,
                         std::uint64_t source_index, std::uint64_t epoch)
    : source_(std::move(source)),
      fim_(fim),
      shuffle_(shuffle),
      order_(source_->num_documents(), Random(seed, RandomPurpose::kSampleOrder, stream_id(source_index, epoch, 0))),
      turned_(source_->num_documents(), Random(seed, RandomPurpose::kFillInMiddle, stream_id(source_index, epoch, 0))),
      num_turned_(count_turned(*source_, fim)),
      cuts_(seed, RandomPurpose::kFillInMiddle, stream_id(source_index, epoch, 1)),
      ends_(source_->num_documents()) {
  std::uint64_t end = 0;
  for (std::uint64_t rank = 0; rank < ends_.size(); ++rank) {
    const std::uint64_t document = document_at(rank);
    end += source_->document_length(document);
    if (num_turned_ > 0 && is_turned(document)) end += kExtraTokens;
    ends_[rank] = end;
  }
  HADAL_CHECK_EQ(end, length(*source_, fim_));
}

std::uint64_t EpochStream::document_at(std::uint64_t rank) const { return shuffle_ ? order_(rank) : rank; }

void EpochStream::read(std::uint64_t position, std::span<std::int32_t> tokens, std::span<std::uint8_t> loss_mask,
                       std::span<std::int32_t> document_ids) const {
  HADAL_CHECK(position < length() && loss_mask.size() == tokens.size() && document_ids.size() == tokens.size(),
              "position {} of {}", position, length());
  auto rank = static_cast<std::uint64_t>(std::ranges::upper_bound(ends_, position) - ends_.begin());
  std::int32_t document_id = 0;
  for (std::size_t done = 0; done < tokens.size(); ++document_id) {
    const std::uint64_t document_begin = rank == 0 ? 0 : ends_[rank - 1];
    const std::size_t count = std::min<std::uint64_t>(tokens.size() - done, ends_[rank] - position);
    read_document(document_at(rank), position - document_begin, tokens.subspan(done, count), loss_mask.subspan(done, count));
    std::ranges::fill(document_ids.subspan(done, count), document_id);
    done += count;
    // A document of no tokens leaves no trace.
    if (count == 0) --document_id;
    rank = rank + 1 == ends_.size() ? 0 : rank + 1;
    position = rank == 0 ? 0 : ends_[rank - 1];
  }
}

void EpochStream::read_document(std::uint64_t document, std::uint64_t begin, std::span<std::int32_t> tokens,
                                std::span<std::uint8_t> loss_mask) const {
  const std::uint64_t first = source_->document_begin(document);
  const std::uint64_t count = source_->document_length(document);
  if (num_turned_ == 0 || !is_turned(document)) {
    source_->read(first + begin, tokens);
    source_->read_loss_mask(first + begin, loss_mask);
    return;
  }
  std::uint64_t eos = 0;
  if (source_->eos_token_id() >= 0 && count > 0) {
    std::int32_t last = 0;
    source_->read(first + count - 1, {&last, 1});
    eos = last == source_->eos_token_id();
  }
  const std::uint64_t text = count - eos;
  const std::uint64_t cut_a = cuts_.below(2 * document, text + 1);
  const std::uint64_t cut_b = cuts_.below(2 * document + 1, text + 1);
  const std::uint64_t low = std::min(cut_a, cut_b);
  const std::uint64_t high = std::max(cut_a, cut_b);
  const std::array<Piece, 7> pieces{{{0, 1, fim_.begin_id},
                                     {first, low, -1},
                                     {0, 1, fim_.hole_id},
                                     {first + high, text - high, -1},
                                     {0, 1, fim_.end_id},
                                     {first + low, high - low, -1},
                                     {first + text, eos, -1}}};
  std::uint64_t skip = begin;
  std::size_t done = 0;
  for (const Piece& piece : pieces) {
    if (skip >= piece.count) {
      skip -= piece.count;
      continue;
    }
    const std::size_t taken = std::min<std::uint64_t>(piece.count - skip, tokens.size() - done);
    if (taken == 0) break;
    if (piece.id >= 0) {
      tokens[done] = piece.id;
      loss_mask[done] = 1;
    } else {
      source_->read(piece.begin + skip, tokens.subspan(done, taken));
      source_->read_loss_mask(piece.begin + skip, loss_mask.subspan(done, taken));
    }
    skip = 0;
    done += taken;
  }
}

}  // namespace hadal::data
