#include "data/hold_out.h"

#include <algorithm>
#include <bit>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/rng.h"

namespace hadal::data {
namespace {

/// Some documents of another source, in their order.
class SubsetSource : public TokenSource {
 public:
  SubsetSource(TokenSourcePtr base, std::vector<std::uint64_t> documents, Hash128 fingerprint, std::string name)
      : base_(std::move(base)), documents_(std::move(documents)), fingerprint_(fingerprint), name_(std::move(name)) {
    std::uint64_t end = 0;
    for (const std::uint64_t document : documents_) doc_ends_.push_back(end += base_->document_length(document));
  }

  const std::string& name() const override { return name_; }
  std::span<const std::uint64_t> doc_ends() const override { return doc_ends_; }
  void read(std::uint64_t begin, std::span<std::int32_t> out) const override {
    each_run(begin, out.size(),
             [&](std::uint64_t from, std::size_t at, std::size_t count) { base_->read(from, out.subspan(at, count)); });
  }
  void read_loss_mask(std::uint64_t begin, std::span<std::uint8_t> out) const override {
    each_run(begin, out.size(),
             [&](std::uint64_t from, std::size_t at, std::size_t count) { base_->read_loss_mask(from, out.subspan(at, count)); });
  }
  bool has_loss_mask() const override { return base_->has_loss_mask(); }
  Hash128 fingerprint() const override { return fingerprint_; }
  std::string_view format() const override { return base_->format(); }
  std::string_view dtype_name() const override { return base_->dtype_name(); }
  std::uint64_t vocab_size() const override { return base_->vocab_size(); }
  std::int64_t eos_token_id() const override { return base_->eos_token_id(); }
  std::string tokenizer_hash() const override { return base_->tokenizer_hash(); }

 private:
  /// Calls visit(place in the base, place in the output, count) for each document that [begin, begin + count) touches.
  template <class Visit>
  void each_run(std::uint64_t begin, std::size_t count, Visit&& visit) const {
    HADAL_CHECK(begin <= num_tokens() && count <= num_tokens() - begin, "{}: tokens {} + {} of {}", name_, begin, count,
                num_tokens());
    auto document = static_cast<std::size_t>(std::ranges::upper_bound(doc_ends_, begin) - doc_ends_.begin());
    for (std::size_t done = 0; done < count; ++document) {
      const std::uint64_t inside = begin + done - document_begin(document);
      const std::size_t run = std::min<std::uint64_t>(count - done, doc_ends_[document] - (begin + done));
      visit(base_->document_begin(documents_[document]) + inside, done, run);
      done += run;
    }
  }

  TokenSourcePtr base_;
  std::vector<std::uint64_t> documents_;
  std::vector<std::uint64_t> doc_ends_;
  Hash128 fingerprint_;
  std::string name_;
};

}  // namespace

TokenSourcePtr hold_out(TokenSourcePtr source, Part part, double fraction) {
  HADAL_CHECK(fraction >= 0.0 && fraction < 1.0, "fraction {}", fraction);
  if (fraction == 0.0) {
    if (part == Part::kTraining) return source;
    throw UserError(
        "{}: nothing is held out for validation: set data.validation_fraction above 0 or give data.validation_sources",
        source->name());
  }
  const std::uint64_t num_documents = source->num_documents();
  if (num_documents < 2) {
    throw UserError(
        "{}: holds {} document(s), so none can be held out for validation: build it with `--documents 16KiB` "
        "(or paragraphs), or set data.validation_fraction=0",
        source->name(), num_documents);
  }
  const Random random(0, RandomPurpose::kSampleOrder, stream_of("hold-out"));
  std::uint64_t lowest = 0;
  std::uint64_t highest = 0;
  for (std::uint64_t document = 1; document < num_documents; ++document) {
    if (random.bits(document) < random.bits(lowest)) lowest = document;
    if (random.bits(document) > random.bits(highest)) highest = document;
  }
  std::vector<std::uint64_t> documents;
  for (std::uint64_t document = 0; document < num_documents; ++document) {
    const bool held = document == lowest || (document != highest && random.uniform(document) < fraction);
    if (held == (part == Part::kValidation)) documents.push_back(document);
  }
  Hasher hasher;
  const Hash128 base = source->fingerprint();
  for (const std::uint64_t value :
       {base.low, base.high, std::bit_cast<std::uint64_t>(fraction), std::uint64_t{part == Part::kValidation}}) {
    hasher.update(std::as_bytes(std::span(&value, 1)));
  }
  std::string name = source->name() + (part == Part::kValidation ? " (validation part)" : " (training part)");
  return std::make_shared<SubsetSource>(std::move(source), std::move(documents), hasher.digest(), std::move(name));
}

}  // namespace hadal::data
