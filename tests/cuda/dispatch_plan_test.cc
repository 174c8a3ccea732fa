// Guards: the device's counting sort equals the sequential one, element by element: empty experts, one expert for all, sizes around its
// blocks, as many pairs as 128k tokens have.
#include "core/rng.h"
#include "kernels/router.h"
#include "tests/cuda/twin.h"

namespace hadal::test {
namespace {

void check_plan(std::int64_t tokens, std::int64_t top_k, std::int64_t num_experts, const std::vector<std::int64_t>& chosen) {
  SCOPED_TRACE(testing::Message() << tokens << " x " << top_k << " pairs, " << num_experts << " experts");
  Twin experts = Twin::ints({tokens, top_k}, chosen);
  Twin offsets = Twin::output({num_experts + 1}, DType::kI64), row_token = Twin::output({tokens * top_k}, DType::kI32),
       row_pair = Twin::output({tokens * top_k}, DType::kI32), pair_row = Twin::output({tokens, top_k}, DType::kI32);
  run_on_both({&experts}, {&offsets, &row_token, &row_pair, &pair_row}, [&](Stream& stream, Side side) {
    run(stream, kernels::DispatchPlan{.num_experts = num_experts,
                                      .experts = side(experts),
                                      .offsets = side(offsets),
                                      .row_token = side(row_token),
                                      .row_pair = side(row_pair),
                                      .pair_row = side(pair_row)});
  });
  EXPECT_TRUE(offsets.equal());
  EXPECT_TRUE(row_token.equal());
  EXPECT_TRUE(row_pair.equal());
  EXPECT_TRUE(pair_row.equal());
}

TEST(CudaDispatchPlan, IsTheSequentialSort) {
  const Random random(9, RandomPurpose::kSynthetic);
  std::uint64_t next = 0;
  struct Size {
    std::int64_t tokens, top_k, num_experts;
  };
  for (const Size& size : {Size{0, 2, 5},
                           {1, 1, 1},
                           {1, 6, 64},
                           {5, 2, 5},
                           {31, 1, 7},
                           {33, 3, 300},
                           {511, 1, 16},
                           {777, 2, 2048},
                           {4099, 6, 64},
                           {11265, 6, 64},
                           {20011, 8, 256},
                           {131072, 6, 160}}) {
    std::vector<std::int64_t> chosen(static_cast<std::size_t>(size.tokens * size.top_k));
    for (auto& e : chosen) e = static_cast<std::int64_t>(random.below(next++, static_cast<std::uint64_t>(size.num_experts)));
    check_plan(size.tokens, size.top_k, size.num_experts, chosen);
  }
}

TEST(CudaDispatchPlan, TakesLoadsOfAnyShape) {
  const std::int64_t tokens = 3001, top_k = 4, num_experts = 64;
  std::vector<std::int64_t> chosen(static_cast<std::size_t>(tokens * top_k), 63);
  check_plan(tokens, top_k, num_experts, chosen);  // all to the last
  for (std::size_t p = 0; p < chosen.size(); ++p) chosen[p] = p % 4 == 0 ? 0 : 40 + static_cast<std::int64_t>(p % 3);
  check_plan(tokens, top_k, num_experts, chosen);  // most experts empty
  for (std::size_t p = 0; p < chosen.size(); ++p) chosen[p] = 63 - static_cast<std::int64_t>(p * 64 / chosen.size());
  check_plan(tokens, top_k, num_experts, chosen);  // in falling order
}

}  // namespace
}  // namespace hadal::test
