// Byte-level BPE tokenizer: text to ids and back, exactly as HF tokenizers does it (spec/interop.md 4).
// A Tokenizer is a cheap handle on an immutable model: copy it freely; every const function may run on many threads at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/pre_tokenizer.h"

namespace hadal::tokenizer {

struct TokenizerModel;

class Tokenizer {
 public:
  /// `path` is a tokenizer.json or a directory that holds one; tokenizer_config.json beside it names bos, eos and pad.
  /// UserError (file, place, reason) on anything damaged, malformed, or not implemented.
  static Tokenizer load(const std::filesystem::path& path);
  /// The same from memory; `name` stands for the file in messages. `config` is tokenizer_config.json, or empty.
  static Tokenizer from_json(std::string_view json, std::string_view config, const std::string& name);
  explicit Tokenizer(std::shared_ptr<const TokenizerModel> model);

  /// Writes tokenizer.json and tokenizer_config.json into `directory` (created when missing), byte for byte as hashed.
  void save(const std::filesystem::path& directory) const;

  /// Ids of `text`; added tokens in the text are recognised. Invalid UTF-8 is replaced by U+FFFD first.
  std::vector<std::int32_t> encode(std::string_view text, bool add_bos = false) const;
  /// The same, appended to `ids`. Returns the number of U+FFFD that replaced invalid bytes.
  std::size_t encode_append(std::string_view text, std::vector<std::int32_t>& ids) const;
  /// encode() of each text, on all threads (core/parallel_for.h); long texts are cut where no piece crosses.
  std::vector<std::vector<std::int32_t>> encode_all(std::span<const std::string_view> texts,
                                                    std::size_t* replaced = nullptr) const;
  /// The exact bytes of the ids (not always valid UTF-8); UserError on an id outside the vocabulary.
  /// `skip_special` leaves out added tokens marked special.
  std::string decode(std::span<const std::int32_t> ids, bool skip_special = false) const;

  /// Bytes that `id` stands for: the sum over ids of their sizes is the size of the decoded text. Empty for an unused id.
  /// UserError when id is not in [0, vocab_size()).
  std::string_view token_bytes(std::int32_t id) const;
  /// Largest id + 1, added tokens included.
  std::int32_t vocab_size() const;
  /// Merges in the model.
  std::size_t num_merges() const;
  /// Id of an added token or of a vocabulary entry in its mapped form ("Ġthe"); -1 when there is none.
  std::int32_t id_of(std::string_view token) const;
  /// Mapped form of a token as tokenizer.json writes it; empty for an unused id.
  std::string token_text(std::int32_t id) const;
  bool is_special(std::int32_t id) const;
  /// -1 when the tokenizer has none.
  std::int32_t bos_id() const;
  std::int32_t eos_id() const;
  std::int32_t pad_id() const;
  /// Ids of the fill-in-the-middle tokens, -1 when absent.
  std::int32_t fim_begin_id() const;
  std::int32_t fim_hole_id() const;
  std::int32_t fim_end_id() const;
  /// Added tokens in id order.
  std::vector<std::int32_t> added_token_ids() const;
  PreTokenizerKind pre_tokenizer_kind() const;

  /// XXH3-128 of tokenizer.json in hex: the identity recorded in token files and checkpoints.
  const std::string& hash() const;
  /// The exact contents of the two files (export copies them).
  const std::string& json() const;
  const std::string& config_json() const;

 private:
  std::shared_ptr<const TokenizerModel> model_;
};

/// Streaming decode: bytes come out as soon as they complete UTF-8 characters; an unfinished character is held back.
class IncrementalDecoder {
 public:
  explicit IncrementalDecoder(Tokenizer tokenizer, bool skip_special = false);
  /// Text that `id` completes (may be empty). Bytes that can never become valid UTF-8 pass through unchanged.
  std::string push(std::int32_t id);
  /// What is still held back, as it is; the decoder is empty afterwards.
  std::string finish();

 private:
  Tokenizer tokenizer_;
  bool skip_special_;
  std::string held_;
};

}  // namespace hadal::tokenizer
