// Guards: dispatch into bounded room, against a plain reading of its contract: each row once to every destination of its experts, experts
// rising, the first rows of a destination where not all find room, and exactly the others counted; the sort of slots by expert with rows
// for the first alone; a norm that becomes NaN where anything was left out.
#include "kernels/expert_room.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "tests/support/expert_choices.h"

namespace hadal::kernels {
namespace {

using Ints = std::vector<std::int32_t>;

Ints ints_of(const Tensor& tensor) { return {tensor.span<std::int32_t>().begin(), tensor.span<std::int32_t>().end()}; }

struct Sends {
  Tensor sent_row, sent_experts, sent_weights, row_sends, pair_sends, overflow;
};

/// With garbage in what is to be overwritten, and 5 counted before.
Sends outputs(const test::ExpertChoices& c, std::int64_t copies, std::int64_t room) {
  const std::int64_t rows = c.experts.shape()[0], slots = c.experts.shape()[1], sent = c.num_places * copies * room;
  const std::int64_t there = std::min(slots, c.num_experts / c.num_places);
  Sends s{Tensor::empty({sent}, DType::kI32),
          Tensor::empty({sent, there}, DType::kI32),
          Tensor::empty({sent, there}, DType::kF64),
          Tensor::empty({rows, std::min(c.num_places, slots) * copies}, DType::kI32),
          Tensor::empty({rows * slots, copies}, DType::kI32),
          Tensor::empty({1}, DType::kI64)};
  for (Tensor* t : {&s.sent_row, &s.sent_experts, &s.row_sends, &s.pair_sends}) std::ranges::fill(t->span<std::int32_t>(), 77);
  std::ranges::fill(s.sent_weights.span<double>(), 7.5);
  *s.overflow.as<std::int64_t>() = 5;
  return s;
}

/// Destination by destination, where the op goes row by row.
Sends oracle(const test::ExpertChoices& c, std::int64_t copies, std::int64_t room) {
  Sends s = outputs(c, copies, room);
  for (Tensor* t : {&s.sent_row, &s.sent_experts, &s.row_sends, &s.pair_sends}) std::ranges::fill(t->span<std::int32_t>(), -1);
  std::ranges::fill(s.sent_weights.span<double>(), 0.0);
  const std::int64_t rows = c.experts.shape()[0], slots = c.experts.shape()[1], there = s.sent_experts.shape()[1], width = s.row_sends.shape()[1];
  const std::int64_t per_place = c.num_experts / c.num_places;
  const std::int32_t* chosen = c.experts.as<std::int32_t>();
  std::vector<std::int64_t> destinations(static_cast<std::size_t>(rows), 0);
  for (std::int64_t d = 0; d < c.num_places * copies; ++d) {
    const std::int64_t place = d / copies;
    std::int64_t at = 0;
    for (std::int64_t row = 0; row < rows; ++row) {
      std::map<std::int32_t, std::int64_t> meant;  // expert -> pair
      for (std::int64_t pair = row * slots; pair < (row + 1) * slots; ++pair) {
        if (chosen[pair] >= 0 && chosen[pair] / per_place == place) meant[chosen[pair]] = pair;
      }
      if (meant.empty()) continue;
      const std::int64_t sent = d * room + at, nth = destinations[static_cast<std::size_t>(row)]++;
      if (at++ >= room) {
        ++*s.overflow.as<std::int64_t>();
        continue;
      }
      s.sent_row.as<std::int32_t>()[sent] = static_cast<std::int32_t>(row);
      s.row_sends.as<std::int32_t>()[row * width + nth] = static_cast<std::int32_t>(sent);
      std::int64_t slot = sent * there;
      for (const auto& [expert, pair] : meant) {
        s.sent_experts.as<std::int32_t>()[slot] = static_cast<std::int32_t>(expert - place * per_place);
        s.sent_weights.as<double>()[slot] = c.weights.as<double>()[pair];
        s.pair_sends.as<std::int32_t>()[pair * copies + d % copies] = static_cast<std::int32_t>(slot++);
      }
    }
  }
  return s;
}

TEST(ExpertSendsOp, SendsTheFirstRowsOfEachDestinationAndCountsTheOthers) {
  Stream stream;
  bool overflowed = false, had_room = false;
  for (const test::ExpertCase& of : test::expert_cases()) {
    if (of.rows > 1000) continue;  // the device's
    const test::ExpertChoices c = test::make_choices(of);
    for (const std::int64_t room : {std::int64_t{1}, of.rows / 3 + 1, of.rows + 1}) {
      SCOPED_TRACE(testing::Message() << testing::PrintToString(of) << ", room " << room);
      const Sends expected = oracle(c, of.copies, room);
      Sends s = outputs(c, of.copies, room);
      run(stream, ExpertSends{.num_experts = of.num_experts, .num_places = of.num_places, .copies = of.copies, .experts = c.experts,
                              .weights = c.weights, .sent_row = s.sent_row, .sent_experts = s.sent_experts, .sent_weights = s.sent_weights,
                              .row_sends = s.row_sends, .pair_sends = s.pair_sends, .overflow = s.overflow});
      EXPECT_EQ(ints_of(s.sent_row), ints_of(expected.sent_row));
      EXPECT_EQ(ints_of(s.sent_experts), ints_of(expected.sent_experts));
      EXPECT_EQ(ints_of(s.row_sends), ints_of(expected.row_sends));
      EXPECT_EQ(ints_of(s.pair_sends), ints_of(expected.pair_sends));
      EXPECT_TRUE(std::ranges::equal(s.sent_weights.span<double>(), expected.sent_weights.span<double>()));
      const std::int64_t overflow = *s.overflow.as<std::int64_t>();
      EXPECT_EQ(overflow, *expected.overflow.as<std::int64_t>());
      (overflow > 5 ? overflowed : had_room) = true;
      EXPECT_TRUE(room <= of.rows || overflow == 5);
    }
  }
  EXPECT_TRUE(overflowed && had_room);
}

TEST(ExpertRowsOp, SortsWhatNamesAnExpertIntoTheRowsThatThereAre) {
  Stream stream;
  for (const test::ExpertCase& of : test::expert_cases()) {
    if (of.rows > 1000) continue;
    const test::ExpertChoices c = test::make_choices(of);
    std::vector<std::pair<std::int32_t, std::size_t>> sorted;  // (expert, pair)
    const Ints chosen = ints_of(c.experts);
    for (std::size_t pair = 0; pair < chosen.size(); ++pair) {
      if (chosen[pair] >= 0) sorted.emplace_back(chosen[pair], pair);
    }
    std::ranges::sort(sorted);
    const std::int64_t all = std::ssize(sorted);
    for (const std::int64_t room : {std::int64_t{0}, all / 2, all, all + 9}) {
      Tensor offsets = Tensor::empty({of.num_experts + 1}, DType::kI64), pair_row = Tensor::empty(c.experts.shape(), DType::kI32);
      Tensor overflow = Tensor::zeros({1}, DType::kI64);
      *overflow.as<std::int64_t>() = 5;
      run(stream, ExpertRows{.num_experts = of.num_experts, .room = room, .experts = c.experts, .offsets = offsets, .pair_row = pair_row,
                             .overflow = overflow});
      Ints expected(chosen.size(), -1);
      std::vector<std::int64_t> ends(static_cast<std::size_t>(of.num_experts) + 1, 0);
      for (std::int64_t row = 0; row < std::min(room, all); ++row) {
        const auto [expert, pair] = sorted[static_cast<std::size_t>(row)];
        expected[pair] = static_cast<std::int32_t>(row);
        for (std::size_t e = static_cast<std::size_t>(expert) + 1; e < ends.size(); ++e) ++ends[e];
      }
      EXPECT_EQ(ints_of(pair_row), expected);
      EXPECT_TRUE(std::ranges::equal(offsets.span<std::int64_t>(), ends));
      EXPECT_EQ(*overflow.as<std::int64_t>(), 5 + std::max<std::int64_t>(all - room, 0));
    }
  }
}

TEST(RefuseOverflowOp, MakesTheNormOfAnIncompletePassNaN) {
  Stream stream;
  Tensor overflow = Tensor::zeros({1}, DType::kI64), x = Tensor::empty({1}, DType::kF64), y = Tensor::empty({1}, DType::kF64);
  *x.as<double>() = 2.5;
  run(stream, RefuseOverflow{.overflow = overflow, .x = x, .y = y});
  EXPECT_EQ(*y.as<double>(), 2.5);
  *overflow.as<std::int64_t>() = 1;
  run(stream, RefuseOverflow{.overflow = overflow, .x = x, .y = y});
  EXPECT_TRUE(std::isnan(*y.as<double>()));
}

TEST(ExpertSendsOp, RefusesWhatDoesNotFit) {
  Stream stream;
  const test::ExpertChoices c = test::make_choices({.rows = 4, .slots = 2, .num_experts = 6, .num_places = 3});
  Sends s = outputs(c, 1, 2);
  ExpertSends args{.num_experts = 6, .num_places = 3, .experts = c.experts, .weights = c.weights, .sent_row = s.sent_row,
                   .sent_experts = s.sent_experts, .sent_weights = s.sent_weights, .row_sends = s.row_sends, .pair_sends = s.pair_sends,
                   .overflow = s.overflow};
  run(stream, args);
  args.num_places = 4;  // does not divide the experts
  EXPECT_THROW(run(stream, args), ContractError);
  args.num_places = 6;  // one slot at each
  EXPECT_THROW(run(stream, args), ContractError);
}

}  // namespace
}  // namespace hadal::kernels
