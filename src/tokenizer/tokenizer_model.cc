#include "tokenizer/tokenizer_model.h"

#include <algorithm>
#include <atomic>

#include "core/error.h"
#include "tokenizer/byte_map.h"
#include "tokenizer/piece_cache.h"

namespace hadal::tokenizer {
namespace {

std::uint64_t next_serial() {
  static std::atomic<std::uint64_t> last{0};
  return ++last;
}

AddedTokenMatcher matcher_of(const TokenizerDocument& document, bool normalized) {
  std::vector<AddedToken> tokens;
  for (const AddedToken& token : document.added_tokens) {
    if (token.normalized == normalized) tokens.push_back(token);
  }
  return AddedTokenMatcher(std::move(tokens));
}

PieceEncoder encoder_of(const TokenizerDocument& document) {
  std::unordered_map<std::string_view, std::int32_t> ids;
  for (const VocabularyEntry& entry : document.vocabulary) ids.emplace(entry.content, entry.id);
  std::array<std::uint32_t, 256> byte_ids{};
  for (std::size_t byte = 0; byte < 256; ++byte) {
    const std::string symbol = map_bytes(std::string(1, static_cast<char>(byte)));
    const auto found = ids.find(symbol);
    HADAL_CHECK(found != ids.end(), "no symbol for byte {}", byte);
    byte_ids[byte] = static_cast<std::uint32_t>(found->second);
  }
  MergeTable merges(document.merges.size());
  for (std::size_t rank = 0; rank < document.merges.size(); ++rank) {
    const MergeEntry& merge = document.merges[rank];
    merges.insert(static_cast<std::uint32_t>(merge.left), static_cast<std::uint32_t>(merge.right),
                  MergeRule{static_cast<std::uint32_t>(rank), static_cast<std::uint32_t>(merge.merged)});
  }
  return PieceEncoder(byte_ids, std::move(merges));
}

// Calls on_token(id) and on_text(view) for the parts of `text`, in order.
template <class OnToken, class OnText>
void for_each_part(const AddedTokenMatcher& matcher, std::string_view text, const OnToken& on_token, const OnText& on_text) {
  std::size_t done = 0;
  while (done < text.size()) {
    const auto match = matcher.find(text, done);
    if (!match) break;
    if (match->begin > done) on_text(text.substr(done, match->begin - done));
    on_token(match->id);
    done = match->end;
  }
  if (done < text.size()) on_text(text.substr(done));
}

}  // namespace

TokenizerModel::TokenizerModel(TokenizerDocument parsed)
    : document(std::move(parsed)),
      serial_(next_serial()),
      exact_(matcher_of(document, false)),
      normalized_(matcher_of(document, true)),
      encoder_(encoder_of(document)) {
  std::int32_t size = 0;
  for (const VocabularyEntry& entry : document.vocabulary) size = std::max(size, entry.id + 1);
  for (const AddedToken& token : document.added_tokens) size = std::max(size, token.id + 1);
  bytes.resize(static_cast<std::size_t>(size));
  special.resize(static_cast<std::size_t>(size));
  ids.reserve(document.vocabulary.size() + document.added_tokens.size());
  for (const VocabularyEntry& entry : document.vocabulary) {
    // A string outside the byte map stands for its own bytes, as in HF's decoder.
    bytes[static_cast<std::size_t>(entry.id)] = unmap_bytes(entry.content).value_or(entry.content);
    ids.emplace(entry.content, entry.id);
  }
  for (const AddedToken& token : document.added_tokens) {
    bytes[static_cast<std::size_t>(token.id)] = token.content;
    special[static_cast<std::size_t>(token.id)] = token.special;
    ids.emplace(token.content, token.id);
  }
}

void TokenizerModel::encode(std::string_view text, std::vector<std::int32_t>& out) const {
  const auto on_token = [&out](std::int32_t id) { out.push_back(id); };
  for_each_part(exact_, text, on_token, [&](std::string_view part) {
    for_each_part(normalized_, part, on_token, [&](std::string_view plain) { encode_plain(plain, out); });
  });
}

void TokenizerModel::encode_plain(std::string_view text, std::vector<std::int32_t>& out) const {
  thread_local std::vector<std::string_view> pieces;
  pieces.clear();
  split_pieces(document.pre_tokenizer, text, pieces);
  PieceCache& cache = PieceCache::of_thread(serial_);
  const char* const end = text.data() + text.size();
  for (const std::string_view piece : pieces) {
    if (piece.size() > PieceCache::kMaxBytes) {
      encoder_.encode(piece, out);
      continue;
    }
    const PieceCache::Key key = PieceCache::key_of(piece, static_cast<std::size_t>(end - piece.data()));
    if (cache.find(key, out)) continue;
    const std::size_t before = out.size();
    encoder_.encode(piece, out);
    cache.insert(key, out.data() + before, out.size() - before);
  }
}

}  // namespace hadal::tokenizer
