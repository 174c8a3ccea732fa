// The sampler: each token once an epoch, any sample at any time, the same rows for any layout, FIM that can be undone.
#include "data/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <memory>
#include <set>
#include <thread>

#include "core/error.h"
#include "data/hold_out.h"
#include "tests/data/memory_source.h"

namespace hadal::data {
namespace {

using test::distinct_documents;
using test::MemorySource;

constexpr FillInMiddle kNoFim{};
constexpr FillInMiddle kFim{0.3, 1, 2, 3};

TokenSourcePtr source_of(std::vector<std::vector<std::int32_t>> documents) {
  return std::make_shared<MemorySource>(std::move(documents), 0);
}

SamplerOptions options_of(std::int64_t length, const FillInMiddle& fim = kNoFim, std::uint64_t seed = 1) {
  SamplerOptions options;
  options.seed = seed;
  options.sequence_length = length;
  options.fim = fim;
  return options;
}

template <class T>
std::vector<T> values(const Tensor& tensor) {
  return {tensor.span<T>().begin(), tensor.span<T>().end()};
}

std::vector<std::int32_t> tokens_at(const Sampler& sampler, std::uint64_t first, std::int64_t count) {
  return values<std::int32_t>(sampler.batch(first, count).tokens);
}

TEST(Permutation, IsOneToOneAndMixes) {
  for (const std::uint64_t size : {1u, 2u, 3u, 17u, 64u, 1000u, 4097u}) {
    const Permutation permutation(size, Random(5, RandomPurpose::kSampleOrder, size));
    std::set<std::uint64_t> images;
    for (std::uint64_t i = 0; i < size; ++i) images.insert(permutation(i));
    EXPECT_EQ(images.size(), size);
    EXPECT_LT(*images.rbegin(), size);
  }
  // The first element is uniform over seeds: chi-square of 64 cells over 6,400 seeds, 63 degrees of freedom, below its 99.99 %
  // point.
  std::vector<double> cells(64);
  for (std::uint64_t seed = 0; seed < 6400; ++seed) cells[Permutation(64, Random(seed, RandomPurpose::kSampleOrder))(0)] += 1;
  double chi_square = 0;
  for (const double cell : cells) chi_square += (cell - 100) * (cell - 100) / 100;
  EXPECT_LT(chi_square, 112);
}

TEST(Blend, KeepsProportions) {
  const std::vector<double> weights{0.7, 0.2, 0.1, 0.0, 1e-9};
  const Blend blend(weights);
  std::vector<std::uint64_t> taken(weights.size());
  for (std::uint64_t i = 0; i < 2 * Blend::kPeriod; ++i) {
    const Blend::Pick pick = blend.pick(i);
    ASSERT_EQ(pick.sample, taken[pick.source]) << i;
    ++taken[pick.source];
    if (i > 100 && i < 1000) {
      EXPECT_NEAR(static_cast<double>(taken[0]), 0.7 * static_cast<double>(i + 1), 2.0);
      EXPECT_NEAR(static_cast<double>(taken[1]), 0.2 * static_cast<double>(i + 1), 2.0);
    }
  }
  EXPECT_NEAR(static_cast<double>(taken[0]) / (2 * Blend::kPeriod), 0.7, 3e-5);
  EXPECT_EQ(taken[3], 0u);
  EXPECT_EQ(taken[4], 2u);
  EXPECT_THROW(Blend(std::vector<double>{0.0, 0.0}), UserError);
  EXPECT_THROW(Blend(std::vector<double>{1.0, -0.5}), UserError);
}

TEST(Sampler, EachTokenOfAnEpochIsAnInputOnce) {
  const auto documents = distinct_documents(50, 40);
  const Sampler sampler({{source_of(documents), 1.0}}, options_of(16));
  const auto per_epoch = static_cast<std::int64_t>(sampler.samples_per_epoch(0));
  std::vector<std::int32_t> all;
  for (const auto& document : documents) all.insert(all.end(), document.begin(), document.end());
  std::ranges::sort(all);
  std::vector<std::int32_t> first_epoch;
  for (std::uint64_t epoch = 0; epoch < 3; ++epoch) {
    auto seen = tokens_at(sampler, epoch * static_cast<std::uint64_t>(per_epoch), per_epoch);
    if (epoch == 0) first_epoch = seen;
    if (epoch == 1) {
      EXPECT_NE(seen, first_epoch);
    }
    // All tokens once; what fills the last sample up comes a second time.
    std::ranges::sort(seen);
    std::vector<std::int32_t> extra;
    std::ranges::set_difference(seen, all, std::back_inserter(extra));
    EXPECT_EQ(seen.size() - extra.size(), all.size());
    EXPECT_LT(extra.size(), 16u);
  }
}

TEST(Sampler, TargetsFollowTokensAndDocumentsStayWhole) {
  const auto documents = distinct_documents(50, 40);
  std::map<std::int32_t, std::int32_t> next;  // within a document
  for (const auto& document : documents) {
    for (std::size_t i = 0; i + 1 < document.size(); ++i) next[document[i]] = document[i + 1];
  }
  const Sampler sampler({{source_of(documents), 1.0}}, options_of(16));
  const Batch batch = sampler.batch(3, 40);
  ASSERT_EQ(batch.num_rows(), 40);
  const auto tokens = values<std::int32_t>(batch.tokens);
  const auto targets = values<std::int32_t>(batch.targets);
  const auto ids = values<std::int32_t>(batch.document_ids);
  const auto positions = values<std::int32_t>(batch.positions);
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    EXPECT_EQ(positions[i], static_cast<std::int32_t>(i % 16));
    if (i % 16 == 0) {
      EXPECT_EQ(ids[i], 0);
    } else {
      EXPECT_EQ(tokens[i], targets[i - 1]);
      EXPECT_EQ(ids[i], ids[i - 1] + (tokens[i - 1] == 0 ? 1 : 0));
    }
    if (tokens[i] != 0) {
      EXPECT_EQ(targets[i], next.at(tokens[i]));
    }
  }
}

TEST(Sampler, AnySampleAtAnyTimeFromAnyThread) {
  const std::vector<WeightedSource> sources{{source_of(distinct_documents(50, 40)), 0.6},
                                            {source_of(distinct_documents(30, 90)), 0.4}};
  const Sampler sequential(sources, options_of(16, kFim));
  constexpr std::uint64_t kCount = 600;  // several epochs of both
  std::vector<std::vector<std::int32_t>> rows;
  for (std::uint64_t i = 0; i < kCount; ++i) rows.push_back(tokens_at(sequential, i, 1));
  ASSERT_GT(sequential.locate(kCount).epoch, 2u);
  const Sampler jumping(sources, options_of(16, kFim));
  for (std::uint64_t i = kCount; i-- > 0;) ASSERT_EQ(tokens_at(jumping, i * 7 % kCount, 1), rows[i * 7 % kCount]);
  const Sampler shared(sources, options_of(16, kFim));
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (std::uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (std::uint64_t i = 0; i < kCount; ++i)
        wrong += tokens_at(shared, (i * 13 + t * 150) % kCount, 1) != rows[(i * 13 + t * 150) % kCount];
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

TEST(Sampler, RanksTogetherSeeTheGlobalBatch) {
  const Sampler sampler({{source_of(distinct_documents(50, 40)), 1.0}}, options_of(16, kFim));
  const auto whole = tokens_at(sampler, 24, 8);
  for (const int ranks : {1, 2, 3, 4, 8}) {
    std::vector<std::int32_t> joined;
    std::int64_t before = 0;
    for (int rank = 0; rank < ranks; ++rank) {
      const RowRange rows = rows_of_rank(8, rank, ranks);
      EXPECT_EQ(rows.begin, before);
      before = rows.end;
      const auto part = tokens_at(sampler, 24 + static_cast<std::uint64_t>(rows.begin), rows.end - rows.begin);
      joined.insert(joined.end(), part.begin(), part.end());
    }
    EXPECT_EQ(joined, whole) << ranks;
  }
}

TEST(Sampler, SeedsDiffer) {
  const auto source = source_of(distinct_documents(50, 40));
  const Sampler a({{source, 1.0}}, options_of(16, kNoFim, 1));
  const Sampler b({{source, 1.0}}, options_of(16, kNoFim, 2));
  EXPECT_NE(tokens_at(a, 0, 4), tokens_at(b, 0, 4));
  EXPECT_NE(a.fingerprint(), b.fingerprint());
  EXPECT_NO_THROW(a.check_fingerprint(a.fingerprint().hex()));
  EXPECT_THROW(a.check_fingerprint(b.fingerprint().hex()), UserError);
}

TEST(Sampler, FillInMiddleIsExactInRateAndContent) {
  const auto documents = distinct_documents(200, 40);
  const auto source = source_of(documents);
  std::set<std::uint64_t> turned_once;
  std::vector<double> cut_shares;
  for (std::uint64_t epoch = 0; epoch < 4; ++epoch) {
    const EpochStream stream(source, kFim, true, 9, 0, epoch);
    ASSERT_EQ(stream.length(), source->num_tokens() + 3 * 60);
    std::vector<std::int32_t> tokens(stream.length());
    std::vector<std::uint8_t> mask(tokens.size());
    std::vector<std::int32_t> ids(tokens.size());
    stream.read(0, tokens, mask, ids);
    EXPECT_EQ(ids.back(), 199);
    std::multiset<std::vector<std::int32_t>> rebuilt;
    std::size_t num_turned = 0;
    for (std::size_t at = 0; at < tokens.size();) {
      const std::uint64_t document = stream.document_at(static_cast<std::uint64_t>(ids[at]));
      std::size_t end = at;
      while (end < tokens.size() && ids[end] == ids[at]) ++end;
      std::vector<std::int32_t> part(tokens.begin() + static_cast<std::ptrdiff_t>(at),
                                     tokens.begin() + static_cast<std::ptrdiff_t>(end));
      EXPECT_EQ(part.front() == 1, stream.is_turned(document));
      if (part.front() == 1) {
        ++num_turned;
        turned_once.insert(document);
        const auto hole = std::ranges::find(part, 2);
        const auto middle = std::ranges::find(part, 3);
        ASSERT_TRUE(hole < middle && middle < part.end());
        ASSERT_EQ(part.back(), 0);
        std::vector<std::int32_t> original(part.begin() + 1, hole);
        cut_shares.push_back(static_cast<double>(original.size()) / static_cast<double>(part.size() - 4));
        original.insert(original.end(), middle + 1, part.end() - 1);
        original.insert(original.end(), hole + 1, middle);
        original.push_back(0);
        part = original;
      }
      EXPECT_EQ(part, documents[document]);
      at = end;
    }
    EXPECT_EQ(num_turned, 60u);
  }
  EXPECT_GT(turned_once.size(), 120u);  // others each epoch: 1 - 0.7^4 of 200 = 152 expected
  // The lower of two uniform cuts lies at a third on average.
  double sum = 0;
  for (const double share : cut_shares) sum += share;
  EXPECT_NEAR(sum / static_cast<double>(cut_shares.size()), 1.0 / 3, 0.05);
}

TEST(Sampler, PartsOfATurnedDocumentEqualTheWhole) {
  const auto source = source_of(distinct_documents(20, 60));
  const FillInMiddle all{1.0, 1, 2, 3};
  const EpochStream stream(source, all, true, 9, 0, 0);
  std::vector<std::int32_t> tokens(stream.length());
  std::vector<std::uint8_t> mask(tokens.size());
  std::vector<std::int32_t> ids(tokens.size());
  stream.read(0, tokens, mask, ids);
  for (std::size_t begin = 0; begin + 9 < tokens.size(); ++begin) {
    std::vector<std::int32_t> part(9);
    stream.read(begin, part, std::span(mask).first(9), std::span(ids).first(9));
    ASSERT_TRUE(std::equal(part.begin(), part.end(), tokens.begin() + static_cast<std::ptrdiff_t>(begin))) << begin;
  }
}

TEST(Sampler, FimWithoutItsTokensIsRefused) {
  EXPECT_THROW(Sampler({{source_of(distinct_documents(5, 9)), 1.0}}, options_of(4, {0.1, 1, -1, 3})), UserError);
}

TEST(Sampler, LossMaskFollowsTheToken) {
  auto source = std::make_shared<MemorySource>(distinct_documents(10, 20), 0);
  source->mask.resize(source->num_tokens());
  std::vector<std::int32_t> all(source->num_tokens());
  source->read(0, all);
  for (std::size_t i = 0; i < all.size(); ++i) source->mask[i] = all[i] % 2 == 0;
  const Sampler sampler({{source, 1.0}}, options_of(8));
  const Batch batch = sampler.batch(0, 10);
  for (std::int64_t i = 0; i < batch.tokens.numel(); ++i) {
    const auto at = static_cast<std::size_t>(i);
    EXPECT_EQ(batch.loss_mask.span<std::uint8_t>()[at], batch.targets.span<std::int32_t>()[at] % 2 == 0);
  }
}

TEST(Sampler, ValidationCountsEachTargetOnce) {
  SamplerOptions options = options_of(16);
  options.shuffle = false;
  options.mask_filled_up = true;
  const auto documents = distinct_documents(13, 20);
  const auto source = source_of(documents);
  const Sampler sampler({{source, 1.0}}, options);
  const Batch batch = sampler.batch(0, static_cast<std::int64_t>(sampler.samples_per_epoch(0)));
  const auto mask = values<std::uint8_t>(batch.loss_mask);
  EXPECT_EQ(static_cast<std::uint64_t>(std::ranges::count(mask, 1)), source->num_tokens() - 1);
  EXPECT_EQ(values<std::int32_t>(batch.tokens).front(), documents[0][0]);
}

TEST(HoldOut, SplitsByDocumentsWithoutOverlap) {
  const auto documents = distinct_documents(400, 9);
  const auto whole = source_of(documents);
  const auto training = hold_out(whole, Part::kTraining, 0.1);
  const auto validation = hold_out(whole, Part::kValidation, 0.1);
  EXPECT_EQ(training->num_documents() + validation->num_documents(), 400u);
  EXPECT_EQ(training->num_tokens() + validation->num_tokens(), whole->num_tokens());
  EXPECT_NEAR(static_cast<double>(validation->num_documents()), 40.0, 20.0);
  EXPECT_NE(training->fingerprint(), validation->fingerprint());
  std::vector<std::int32_t> all(training->num_tokens() + validation->num_tokens());
  training->read(0, std::span(all).first(training->num_tokens()));
  validation->read(0, std::span(all).subspan(training->num_tokens()));
  std::vector<std::int32_t> expected(whole->num_tokens());
  whole->read(0, expected);
  std::ranges::sort(all);
  std::ranges::sort(expected);
  EXPECT_EQ(all, expected);
  // Any place reads the same as the whole.
  std::vector<std::int32_t> once(validation->num_tokens());
  validation->read(0, once);
  for (std::size_t begin = 0; begin + 5 < once.size(); ++begin) {
    std::vector<std::int32_t> part(5);
    validation->read(begin, part);
    ASSERT_TRUE(std::equal(part.begin(), part.end(), once.begin() + static_cast<std::ptrdiff_t>(begin)));
  }
}

TEST(HoldOut, SmallSourcesKeepADocumentOnEachSide) {
  for (const std::size_t count : {2u, 3u, 5u}) {
    const auto whole = source_of(distinct_documents(count, 9));
    for (const double fraction : {0.001, 0.5, 0.999}) {
      EXPECT_GE(hold_out(whole, Part::kTraining, fraction)->num_documents(), 1u);
      EXPECT_GE(hold_out(whole, Part::kValidation, fraction)->num_documents(), 1u);
    }
  }
  const auto one = source_of(distinct_documents(1, 9));
  EXPECT_THROW(hold_out(one, Part::kTraining, 0.1), UserError);
  EXPECT_EQ(hold_out(one, Part::kTraining, 0.0), one);
}

}  // namespace
}  // namespace hadal::data
