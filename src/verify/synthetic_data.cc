#include "verify/synthetic_data.h"

#include <algorithm>
#include <string>
#include <vector>

#include "core/hash.h"
#include "core/rng.h"
#include "data/token_source.h"

namespace hadal::verify {
namespace {

constexpr std::uint64_t kNumDocuments = 400;
constexpr std::uint64_t kLongest = 60;
constexpr std::int32_t kFirstId = 4;  // after eos and the three markers of fill-in-middle

class RandomDocuments final : public data::TokenSource {
 public:
  RandomDocuments(std::int64_t vocab_size, std::uint64_t seed) {
    const Random random(seed, RandomPurpose::kSynthetic);
    std::uint64_t draw = 0;
    for (std::uint64_t d = 0; d < kNumDocuments; ++d) {
      const std::uint64_t length = 1 + random.below(draw++, kLongest);
      for (std::uint64_t i = 0; i < length; ++i) {
        tokens_.push_back(kFirstId + static_cast<std::int32_t>(random.below(draw++, static_cast<std::uint64_t>(vocab_size - kFirstId))));
        mask_.push_back(random.below(draw++, 5) == 0 ? 0 : 1);
      }
      tokens_.push_back(0);
      mask_.push_back(1);
      ends_.push_back(tokens_.size());
    }
  }

  const std::string& name() const override { return name_; }
  std::span<const std::uint64_t> doc_ends() const override { return ends_; }
  void read(std::uint64_t begin, std::span<std::int32_t> out) const override {
    std::copy_n(tokens_.begin() + static_cast<std::ptrdiff_t>(begin), out.size(), out.begin());
  }
  void read_loss_mask(std::uint64_t begin, std::span<std::uint8_t> out) const override {
    std::copy_n(mask_.begin() + static_cast<std::ptrdiff_t>(begin), out.size(), out.begin());
  }
  bool has_loss_mask() const override { return true; }
  Hash128 fingerprint() const override { return hash128(std::as_bytes(std::span(tokens_))); }
  std::string_view format() const override { return "memory"; }
  std::string_view dtype_name() const override { return "i32"; }
  std::int64_t eos_token_id() const override { return 0; }

 private:
  std::string name_ = "synthetic documents";
  std::vector<std::int32_t> tokens_;
  std::vector<std::uint8_t> mask_;
  std::vector<std::uint64_t> ends_;
};

}  // namespace

std::unique_ptr<data::Sampler> synthetic_sampler(std::int64_t vocab_size, std::int64_t sequence_length, std::uint64_t seed) {
  const data::SamplerOptions options{.seed = seed,
                                     .sequence_length = sequence_length,
                                     .fim = {.rate = 0.3, .begin_id = 1, .hole_id = 2, .end_id = 3}};
  std::vector<data::WeightedSource> sources{{std::make_shared<RandomDocuments>(vocab_size, seed), 1.0}};
  return std::make_unique<data::Sampler>(std::move(sources), options);
}

}  // namespace hadal::verify
