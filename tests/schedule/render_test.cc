// Timelines as people see them.
#include "schedule/render.h"

#include <gtest/gtest.h>

#include <sstream>

#include "schedule/kinds.h"
#include "schedule/make_plan.h"

namespace hadal::schedule {
namespace {

std::string timeline(const Request& request, const RenderOptions& options = {}) {
  const Plan plan = make_plan(request);
  return render(plan, simulate(plan, {}), options);
}

TEST(Render, one_f_one_b) {
  EXPECT_EQ(timeline({Kind::kOneFOneB, 3, 4}),
            "rank 0 |F0F1F2        B0--F3B1--  B2--  B3--|  33 %\n"
            "rank 1 |  F0F1    B0--F2B1--F3B2--  B3--    |  33 %\n"
            "rank 2 |    F0B0--F1B1--F2B2--F3B3--        |  33 %\n"
            "F forward, B backward, each with its micro-batch; at the end of a row: idle share\n");
}

TEST(Render, dualpipe) {
  EXPECT_EQ(timeline({Kind::kDualPipe, 2, 4}),
            "rank 0 |F0f2F1b2--f3&B0-b3--I1W1|   0 %\n"
            "rank 1 |f2F0f3B0--F1&b2-B1--i3w3|   0 %\n"
            "F forward, B backward, I input gradients, W weight gradients, F&B overlapped, each with its micro-batch; small "
            "letters: the other direction; at the end of a row: idle share\n");
}

TEST(Render, a_long_timeline_loses_its_middle) {
  std::istringstream lines(timeline({Kind::kZeroBubbleH1, 8, 60}, {.width = 80}));
  std::string line;
  for (int rank = 0; rank < 8; ++rank) {
    ASSERT_TRUE(std::getline(lines, line));
    EXPECT_EQ(line.size(), 80u) << line;
    EXPECT_NE(line.find(" ~ "), std::string::npos) << line;
  }
}

TEST(Render, colour_only_when_asked) {
  const Request request{Kind::kDualPipeV, 2, 4};
  const std::string plain = timeline(request);
  EXPECT_EQ(plain.find('\x1b'), std::string::npos);
  std::string coloured = timeline(request, {.colour = true});
  EXPECT_NE(coloured.find('\x1b'), std::string::npos);
  for (std::size_t at; (at = coloured.find('\x1b')) != std::string::npos;) coloured.erase(at, coloured.find('m', at) - at + 1);
  EXPECT_EQ(coloured, plain);
}

TEST(Render, no_name_loses_its_last_digit) {
  // W takes a third of F: room for two columns
  const Plan plan = make_plan({Kind::kZeroBubbleH1, 1, 13});
  const std::string text = render(plan, simulate(plan, {{{0.9, 0.9, 0.6}}, 1, 0}), {});
  EXPECT_NE(text.find("F12I12W2"), std::string::npos) << text;
}

TEST(Render, every_schedule_fits) {
  for (const KindRow& row : kinds()) {
    std::istringstream lines(timeline({row.kind, 4, 16, row.kind == Kind::kInterleaved ? 2 : 1}, {.width = 60}));
    std::string line;
    for (int rank = 0; rank < 4; ++rank) {
      std::getline(lines, line);
      EXPECT_LE(line.size(), 60u) << line;
    }
  }
}

}  // namespace
}  // namespace hadal::schedule
