// Guards: dispatch into bounded room on the device equals the sequential one, element by element: without room for all and with more than
// enough, empty slots, copies, up to many places; the overflow counts, and makes the norm NaN.
#include "kernels/expert_room.h"

#include <algorithm>
#include <cmath>

#include "tests/cuda/twin.h"
#include "tests/support/expert_choices.h"

namespace hadal::test {
namespace {

Twin counter() { return Twin::ints({1}, {5}, DType::kI64); }

/// The twin of integers of a host tensor.
Twin twin_of(const Tensor& ints) { return Twin(ints.clone(), DType::kI32); }

TEST(CudaExpertRoom, SendsAreTheSequentialOnes) {
  for (const ExpertCase& of : expert_cases()) {
    const ExpertChoices c = make_choices(of);
    for (const std::int64_t room : {std::int64_t{1}, of.rows / 3 + 1, of.rows + 1}) {
      SCOPED_TRACE(testing::Message() << testing::PrintToString(of) << ", room " << room);
      const std::int64_t sent = of.num_places * of.copies * room, there = std::min(of.slots, of.num_experts / of.num_places);
      Twin experts = twin_of(c.experts), weights(c.weights.clone(), DType::kF32), overflow = counter();
      Twin sent_row = Twin::output({sent}, DType::kI32), sent_experts = Twin::output({sent, there}, DType::kI32),
           sent_weights = Twin::output({sent, there}, DType::kF32),
           row_sends = Twin::output({of.rows, std::min(of.num_places, of.slots) * of.copies}, DType::kI32),
           pair_sends = Twin::output({of.rows * of.slots, of.copies}, DType::kI32);
      run_on_both({&experts, &weights}, {&sent_row, &sent_experts, &sent_weights, &row_sends, &pair_sends, &overflow},
                  [&](Stream& stream, Side side) {
                    run(stream, kernels::ExpertSends{.num_experts = of.num_experts,
                                                     .num_places = of.num_places,
                                                     .copies = of.copies,
                                                     .experts = side(experts),
                                                     .weights = side(weights),
                                                     .sent_row = side(sent_row),
                                                     .sent_experts = side(sent_experts),
                                                     .sent_weights = side(sent_weights),
                                                     .row_sends = side(row_sends),
                                                     .pair_sends = side(pair_sends),
                                                     .overflow = side(overflow)});
                  });
      EXPECT_TRUE(sent_row.equal());
      EXPECT_TRUE(sent_experts.equal());
      EXPECT_TRUE(sent_weights.agrees(0));
      EXPECT_TRUE(row_sends.equal());
      EXPECT_TRUE(pair_sends.equal());
      EXPECT_TRUE(overflow.equal());
    }
  }
}

TEST(CudaExpertRoom, RowsAreTheSequentialOnes) {
  for (const ExpertCase& of : expert_cases()) {
    const ExpertChoices c = make_choices(of);
    const std::int64_t pairs = of.rows * of.slots;
    for (const std::int64_t room : {std::int64_t{0}, pairs / 2, pairs}) {
      SCOPED_TRACE(testing::Message() << testing::PrintToString(of) << ", room " << room);
      Twin experts = twin_of(c.experts), overflow = counter();
      Twin offsets = Twin::output({of.num_experts + 1}, DType::kI64), pair_row = Twin::output({of.rows, of.slots}, DType::kI32);
      run_on_both({&experts}, {&offsets, &pair_row, &overflow}, [&](Stream& stream, Side side) {
        run(stream, kernels::ExpertRows{.num_experts = of.num_experts,
                                        .room = room,
                                        .experts = side(experts),
                                        .offsets = side(offsets),
                                        .pair_row = side(pair_row),
                                        .overflow = side(overflow)});
      });
      EXPECT_TRUE(offsets.equal());
      EXPECT_TRUE(pair_row.equal());
      EXPECT_TRUE(overflow.equal());
    }
  }
}

TEST(CudaExpertRoom, OverflowRefusesTheNorm) {
  Stream gpu = stream_of(kGpu);
  for (const std::int64_t rows : {0, 1, 7}) {
    Twin overflow = Twin::ints({1}, {rows}, DType::kI64), x(Tensor::zeros({1}, DType::kF64), DType::kF64), y = Twin::output({1}, DType::kF64);
    run_on_both({&overflow, &x}, {&y}, [&](Stream& stream, Side side) {
      run(stream, kernels::RefuseOverflow{.overflow = side(overflow), .x = side(x), .y = side(y)});
    });
    EXPECT_EQ(std::isnan(*to_host(gpu, y.device()).as<double>()), rows > 0);
  }
}

}  // namespace
}  // namespace hadal::test
