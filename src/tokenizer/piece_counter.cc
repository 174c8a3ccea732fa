#include "tokenizer/piece_counter.h"

#include <algorithm>

#include "core/error.h"
#include "tokenizer/piece_hash.h"

namespace hadal::tokenizer {

PieceCounter::PieceCounter() : slots_(std::size_t{1} << 12) {}

void PieceCounter::add(std::string_view piece, std::uint64_t count) { add_hashed(hash_piece(piece), piece, count); }

void PieceCounter::add_hashed(std::uint64_t hash, std::string_view piece, std::uint64_t count) {
  HADAL_CHECK(piece.size() <= UINT32_MAX, "a piece of {} bytes", piece.size());
  const std::size_t mask = slots_.size() - 1;
  std::size_t at = hash & mask;
  for (; slots_[at].count != 0; at = (at + 1) & mask) {
    Entry& entry = slots_[at];
    if (entry.hash == hash && this->piece(entry) == piece) {
      entry.count += count;
      total_ += count;
      return;
    }
  }
  slots_[at] = Entry{hash, arena_.size(), count, static_cast<std::uint32_t>(piece.size())};
  arena_.append(piece);
  total_ += count;
  if (2 * ++num_unique_ > slots_.size()) grow();
}

void PieceCounter::grow() {
  std::vector<Entry> larger(slots_.size() * 2);
  const std::size_t mask = larger.size() - 1;
  for (const Entry& entry : slots_) {
    if (entry.count == 0) continue;
    std::size_t at = entry.hash & mask;
    while (larger[at].count != 0) at = (at + 1) & mask;
    larger[at] = entry;
  }
  slots_ = std::move(larger);
}

void PieceCounter::merge(const PieceCounter& other) {
  for (const Entry& entry : other.slots_) {
    if (entry.count != 0) add_hashed(entry.hash, other.piece(entry), entry.count);
  }
}

std::vector<PieceCounter::Entry> PieceCounter::sorted_entries() const {
  std::vector<Entry> entries;
  entries.reserve(num_unique_);
  for (const Entry& entry : slots_) {
    if (entry.count != 0) entries.push_back(entry);
  }
  std::sort(entries.begin(), entries.end(),
            [this](const Entry& a, const Entry& b) { return a.hash != b.hash ? a.hash < b.hash : piece(a) < piece(b); });
  return entries;
}

}  // namespace hadal::tokenizer
