#include "verify/synthetic_data.h"

#include <vector>

#include "core/rng.h"
#include "data/memory_source.h"

namespace hadal::verify {
namespace {

constexpr int kNumDocuments = 400;
constexpr std::uint64_t kLongest = 60;
constexpr std::int32_t kFirstId = 4;  // after eos and the three markers of fill-in-middle

std::shared_ptr<const data::MemorySource> random_documents(std::int64_t vocab_size, std::uint64_t seed) {
  const Random random(seed, RandomPurpose::kSynthetic);
  std::uint64_t draw = 0;
  std::vector<std::vector<std::int32_t>> documents;
  std::vector<std::uint8_t> mask;
  for (int d = 0; d < kNumDocuments; ++d) {
    std::vector<std::int32_t>& document = documents.emplace_back();
    const std::uint64_t length = 1 + random.below(draw++, kLongest);
    for (std::uint64_t i = 0; i < length; ++i) {
      document.push_back(kFirstId + static_cast<std::int32_t>(random.below(draw++, static_cast<std::uint64_t>(vocab_size - kFirstId))));
      mask.push_back(random.below(draw++, 5) == 0 ? 0 : 1);
    }
    document.push_back(0);
    mask.push_back(1);
  }
  auto source = std::make_shared<data::MemorySource>(documents, 0);
  source->mask = std::move(mask);
  return source;
}

}  // namespace

std::unique_ptr<data::Sampler> synthetic_sampler(std::int64_t vocab_size, std::int64_t sequence_length, std::uint64_t seed) {
  const data::SamplerOptions options{.seed = seed,
                                     .sequence_length = sequence_length,
                                     .fim = {.rate = 0.3, .begin_id = 1, .hole_id = 2, .end_id = 3}};
  std::vector<data::WeightedSource> sources{{random_documents(vocab_size, seed), 1.0}};
  return std::make_unique<data::Sampler>(std::move(sources), options);
}

}  // namespace hadal::verify
