#include "tokenizer/piece_encoder.h"

#include <algorithm>
#include <cstring>
#include <queue>

#include "core/error.h"

namespace hadal::tokenizer {
namespace {

constexpr std::size_t kShort = 48;
constexpr std::uint32_t kEnd = 0xFFFFFFFFu;

struct Symbol {
  std::uint32_t id;  // kEnd: merged into its left neighbour
  std::uint32_t previous;
  std::uint32_t next;
};

struct Candidate {
  std::uint32_t rank;
  std::uint32_t position;
  std::uint32_t left;
  std::uint32_t right;
  std::uint32_t id;
  bool operator>(const Candidate& other) const { return rank != other.rank ? rank > other.rank : position > other.position; }
};

}  // namespace

void PieceEncoder::encode(std::string_view piece, std::vector<std::int32_t>& ids) const {
  if (piece.size() <= kShort) {
    encode_short(piece, ids);
  } else {
    encode_long(piece, ids);
  }
}

void PieceEncoder::encode_short(std::string_view piece, std::vector<std::int32_t>& ids) const {
  std::uint32_t symbols[kShort];
  MergeRule rules[kShort];  // rules[i]: of the pair (symbols[i], symbols[i + 1])
  std::size_t count = piece.size();
  for (std::size_t i = 0; i < count; ++i) symbols[i] = byte_ids_[static_cast<unsigned char>(piece[i])];
  for (std::size_t i = 0; i + 1 < count; ++i) rules[i] = merges_.find(symbols[i], symbols[i + 1]);
  while (count > 1) {
    std::size_t best = 0;
    for (std::size_t i = 1; i + 1 < count; ++i) {
      if (rules[i].rank < rules[best].rank) best = i;
    }
    if (rules[best].rank == MergeRule::kNone) break;
    symbols[best] = rules[best].id;
    --count;
    for (std::size_t i = best + 1; i < count; ++i) {
      symbols[i] = symbols[i + 1];
      rules[i - 1] = rules[i];
    }
    if (best > 0) rules[best - 1] = merges_.find(symbols[best - 1], symbols[best]);
    if (best + 1 < count) rules[best] = merges_.find(symbols[best], symbols[best + 1]);
  }
  for (std::size_t i = 0; i < count; ++i) ids.push_back(static_cast<std::int32_t>(symbols[i]));
}

void PieceEncoder::encode_long(std::string_view piece, std::vector<std::int32_t>& ids) const {
  HADAL_CHECK(piece.size() < kEnd, "a piece of {} bytes", piece.size());
  const auto count = static_cast<std::uint32_t>(piece.size());
  std::vector<Symbol> symbols(count);
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  const auto offer = [&](std::uint32_t left) {
    if (left == kEnd || symbols[left].next == kEnd) return;
    const std::uint32_t right_id = symbols[symbols[left].next].id;
    const MergeRule rule = merges_.find(symbols[left].id, right_id);
    if (rule.rank != MergeRule::kNone) queue.push(Candidate{rule.rank, left, symbols[left].id, right_id, rule.id});
  };
  for (std::uint32_t i = 0; i < count; ++i) {
    symbols[i] = Symbol{byte_ids_[static_cast<unsigned char>(piece[i])], i == 0 ? kEnd : i - 1, i + 1 == count ? kEnd : i + 1};
  }
  for (std::uint32_t i = 0; i < count; ++i) offer(i);
  while (!queue.empty()) {
    const Candidate top = queue.top();
    queue.pop();
    Symbol& left = symbols[top.position];
    if (left.id != top.left || left.next == kEnd || symbols[left.next].id != top.right) continue;
    Symbol& right = symbols[left.next];
    left.id = top.id;
    right.id = kEnd;
    left.next = right.next;
    if (left.next != kEnd) symbols[left.next].previous = top.position;
    offer(left.previous);
    offer(top.position);
  }
  for (std::uint32_t i = 0; i != kEnd; i = symbols[i].next) ids.push_back(static_cast<std::int32_t>(symbols[i].id));
}

}  // namespace hadal::tokenizer
