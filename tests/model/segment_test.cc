// Guards: the order in which a forward and a backward list run: in turns that end at a network segment, backward first, each
// segment once, whatever their lengths, and always the same.
#include "model/segment.h"

#include <gtest/gtest.h>

#include <string>

#include "comm/position.h"

namespace hadal::model {
namespace {

/// "a" computes, "a>" starts a transfer. Each tells its name, in capitals for the backward list.
SegmentList list_of(const char* phase, const std::string& form, std::string& order) {
  SegmentList list{phase, {}};
  for (std::size_t i = 0; i < form.size(); ++i) {
    if (form[i] == '>') continue;
    const auto tell = [&order, name = form[i]] { order += name; };
    if (i + 1 < form.size() && form[i + 1] == '>') {
      list.network("network", 0, tell);
    } else {
      list.compute("compute", 0, tell);
    }
  }
  return list;
}

std::string order_of(const std::string& forward, const std::string& backward) {
  std::string order;
  run_in_turns(list_of("forward", forward, order), 0, list_of("backward", backward, order), 1);
  return order;
}

TEST(Turns, EndWhereATransferStarts) {
  // Two MoE layers each way: attention, dispatch, experts, combine.
  EXPECT_EQ(order_of("ad>e>cbf>g>h", "D>E>AF>G>B"), "DadEeAFcbfGgBh");
}

TEST(Turns, EndAfterTwoComputeSegments) {
  EXPECT_EQ(order_of("abcd", "ABCD"), "ABabCDcd");
  EXPECT_EQ(order_of("abcd>e", "A>BC"), "AabBCcde");  // the dispatch still belongs to the attention before it
}

TEST(Turns, RunWhatIsLeftOfTheLongerList) {
  EXPECT_EQ(order_of("a", "A>B>C>D"), "AaBCD");
  EXPECT_EQ(order_of("a>b>c", ""), "abc");
  EXPECT_EQ(order_of("", "AB>C"), "ABC");
}

TEST(Turns, TellTheLedgerWhoseSegmentRuns) {
  std::vector<std::string> seen;
  const auto tell = [&seen] {
    const comm::Position::Values& at = comm::Position::current();
    seen.push_back(std::string(at.phase) + " " + std::to_string(at.micro_batch) + " " + std::to_string(at.layer));
  };
  SegmentList forward{"forward", {}}, backward{"backward", {}};
  forward.compute("attention", 3, tell);
  backward.compute("attention", 5, tell);
  run_in_turns(forward, 7, backward, 2);
  const comm::Position position("step", 9);
  run_segments(forward);
  EXPECT_EQ(seen, (std::vector<std::string>{"backward 2 5", "forward 7 3", "forward 9 3"}));
}

}  // namespace
}  // namespace hadal::model
