#include "tests/support/exchange_checks.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <vector>

#include "core/tensor.h"

namespace hadal::test {
namespace {

using comm::Communicator;
using comm::Handle;

/// What rank `rank` of the world holds at `index`; magnitudes far apart, so that another order of adding gives other bits.
template <class T>
T value_of(int rank, std::int64_t index, int salt = 0) {
  const std::uint64_t mixed =
      (static_cast<std::uint64_t>(rank + 131 * salt) * 0x9e3779b97f4a7c15u + static_cast<std::uint64_t>(index)) *
      0xbf58476d1ce4e5b9u;
  return static_cast<T>((static_cast<double>(mixed >> 11) * 0x1p-53 - 0.5) * (1 << (mixed % 19)));
}

template <class T>
std::vector<T> values_of(int rank, std::int64_t numel, int salt = 0) {
  std::vector<T> values(static_cast<std::size_t>(numel));
  for (std::int64_t i = 0; i < numel; ++i) values[static_cast<std::size_t>(i)] = value_of<T>(rank, i, salt);
  return values;
}

template <class T>
View view_of(std::vector<T>& values) {
  return {values.data(), kDTypeOf<T>, Shape{static_cast<std::int64_t>(values.size())}, kCpu};
}

/// The sum in the order of the group's ranks.
template <class T>
std::vector<T> sum_of(const Communicator& group, std::int64_t numel, int salt = 0) {
  std::vector<T> sum = values_of<T>(group.world_ranks()[0], numel, salt);
  for (int rank = 1; rank < group.size(); ++rank) {
    const std::vector<T> other = values_of<T>(group.world_ranks()[static_cast<std::size_t>(rank)], numel, salt);
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] = static_cast<T>(sum[i] + other[i]);
  }
  return sum;
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

/// Rank `rank` of the group owns elements [rank * part, (rank + 1) * part).
template <class T>
std::vector<T> part_of(const std::vector<T>& all, int rank, std::int64_t part) {
  return {all.begin() + rank * part, all.begin() + (rank + 1) * part};
}

int me(const Communicator& group) { return group.world_ranks()[static_cast<std::size_t>(group.rank())]; }

template <class T>
std::string check_gather(Communicator& group, std::int64_t part) {
  std::vector<T> expected;
  for (const int rank : group.world_ranks()) {
    const std::vector<T> theirs = values_of<T>(rank, part);
    expected.insert(expected.end(), theirs.begin(), theirs.end());
  }
  std::vector<T> mine = values_of<T>(me(group), part);
  std::vector<T> all(expected.size());
  group.all_gather(view_of(mine), view_of(all));
  std::vector<T> in_place(expected.size());
  std::ranges::copy(mine, in_place.begin() + group.rank() * part);
  group.all_gather(view_of(in_place).rows(group.rank() * part, (group.rank() + 1) * part), view_of(in_place));
  return same_bits(all, expected) && same_bits(in_place, expected) ? ""
                                                                   : fmt::format("gather of {} {}; ", part, name_of(kDTypeOf<T>));
}

template <class T>
std::string check_sums(Communicator& group, std::int64_t part) {
  const std::int64_t numel = part * group.size();
  const std::vector<T> sum = sum_of<T>(group, numel);
  const std::vector<T> expected = part_of(sum, group.rank(), part);
  std::vector<T> all = values_of<T>(me(group), numel);
  std::vector<T> mine(static_cast<std::size_t>(part));
  group.reduce_scatter_sum(view_of(all), view_of(mine));
  std::string wrong;
  if (!same_bits(mine, expected)) wrong += fmt::format("reduce-scatter of {} {}; ", numel, name_of(kDTypeOf<T>));
  if (!same_bits(all, values_of<T>(me(group), numel))) wrong += "reduce-scatter changed its input; ";
  group.reduce_scatter_sum(view_of(all), view_of(all).rows(group.rank() * part, (group.rank() + 1) * part));
  if (!same_bits(part_of(all, group.rank(), part), expected)) wrong += fmt::format("reduce-scatter of {} in place; ", numel);
  std::vector<T> reduced = values_of<T>(me(group), numel);
  group.all_reduce_sum(view_of(reduced));
  if (!same_bits(reduced, sum)) wrong += fmt::format("all-reduce of {} {}; ", numel, name_of(kDTypeOf<T>));
  std::vector<T> started = values_of<T>(me(group), numel);
  group.start_all_reduce_sum(view_of(started)).wait();
  if (!same_bits(started, sum)) wrong += fmt::format("started all-reduce of {} {}; ", numel, name_of(kDTypeOf<T>));
  return wrong;
}

/// Rows from rank a to rank b of a group: uneven, some none; with `dry`, rank `dry` gets and sends nothing.
std::int64_t rows_between(int a, int b, int dry) { return a == dry || b == dry ? 0 : (3 * a + 5 * b + a * b) % 7; }

std::string check_all_to_all(Communicator& group, int dry) {
  constexpr std::int64_t kWidth = 5;
  std::vector<std::int64_t> send_rows;
  std::vector<std::int64_t> recv_rows;
  for (int rank = 0; rank < group.size(); ++rank) {
    send_rows.push_back(rows_between(group.rank(), rank, dry));
    recv_rows.push_back(rows_between(rank, group.rank(), dry));
  }
  const std::int64_t sent = std::reduce(send_rows.begin(), send_rows.end());
  const std::int64_t received = std::reduce(recv_rows.begin(), recv_rows.end());
  // Row i for rank r holds value_of(me, i, r).
  std::vector<float> send;
  for (int rank = 0; rank < group.size(); ++rank) {
    const std::vector<float> rows = values_of<float>(me(group), send_rows[static_cast<std::size_t>(rank)] * kWidth, rank);
    send.insert(send.end(), rows.begin(), rows.end());
  }
  std::vector<float> expected;
  for (int rank = 0; rank < group.size(); ++rank) {
    const std::vector<float> rows = values_of<float>(group.world_ranks()[static_cast<std::size_t>(rank)],
                                                     recv_rows[static_cast<std::size_t>(rank)] * kWidth, group.rank());
    expected.insert(expected.end(), rows.begin(), rows.end());
  }
  // One row of spare space, which must not be touched.
  std::vector<float> recv(static_cast<std::size_t>((received + 1) * kWidth), -1.0f);
  group.all_to_all(View{send.data(), DType::kF32, Shape{sent, kWidth}, kCpu}, send_rows,
                   View{recv.data(), DType::kF32, Shape{received + 1, kWidth}, kCpu}, recv_rows);
  expected.insert(expected.end(), kWidth, -1.0f);
  return same_bits(recv, expected) ? "" : fmt::format("all-to-all without rank {}; ", dry);
}

/// Many under way at once, waited for in another order on each rank, with blocking calls in between.
std::string check_started(Communicator& group) {
  constexpr std::int64_t kNumel = 1003;
  constexpr int kEach = 4;
  std::vector<std::vector<double>> sums;
  std::vector<std::vector<double>> alls;
  std::vector<std::vector<double>> mines;
  std::vector<Handle> handles;
  for (int i = 0; i < kEach; ++i) {
    sums.push_back(values_of<double>(me(group), kNumel, i));
    mines.push_back(values_of<double>(me(group), kNumel, i));
    alls.emplace_back(static_cast<std::size_t>(kNumel * group.size()));
  }
  for (int i = 0; i < kEach; ++i) {
    const auto at = static_cast<std::size_t>(i);
    handles.push_back(group.start_all_reduce_sum(view_of(sums[at])));
    handles.push_back(group.start_all_gather(view_of(mines[at]), view_of(alls[at])));
  }
  std::string wrong;
  const std::int64_t ones = group.all_reduce_sum(std::int64_t{1});
  if (ones != group.size()) wrong += "a sum while others are under way; ";
  if (group.rank() % 2 == 1) std::ranges::reverse(handles);
  handles.front().wait();
  group.barrier();
  for (Handle& handle : handles) handle.wait();
  for (int i = 0; i < kEach; ++i) {
    const auto at = static_cast<std::size_t>(i);
    if (!same_bits(sums[at], sum_of<double>(group, kNumel, i))) wrong += fmt::format("started sum {}; ", i);
    const int last = group.size() - 1;
    if (!same_bits(part_of(alls[at], last, kNumel),
                   values_of<double>(group.world_ranks()[static_cast<std::size_t>(last)], kNumel, i))) {
      wrong += fmt::format("started gather {}; ", i);
    }
  }
  return wrong;
}

/// Three messages of each of two tags around the ring, received tag by tag in the other order; the handles go out of scope
/// unwaited.
std::string check_messages(Communicator& group) {
  if (group.size() == 1) return "";
  const int to = (group.rank() + 1) % group.size();
  const int from = (group.rank() + group.size() - 1) % group.size();
  constexpr int kMessages = 3;
  std::vector<std::vector<float>> out;
  std::vector<std::vector<float>> in;
  for (int i = 0; i < 2 * kMessages; ++i) {
    out.push_back(values_of<float>(me(group), 100 * i * i, i));
    in.emplace_back(out.back().size());
  }
  {
    std::vector<Handle> sends;
    for (int i = 0; i < kMessages; ++i) {
      for (const int tag : {0, 1})
        sends.push_back(group.start_send(view_of(out[static_cast<std::size_t>(tag * kMessages + i)]), to, tag));
    }
    for (const int tag : {1, 0}) {
      for (int i = 0; i < kMessages; ++i) group.receive(view_of(in[static_cast<std::size_t>(tag * kMessages + i)]), from, tag);
    }
  }
  for (int i = 0; i < 2 * kMessages; ++i) {
    if (!same_bits(in[static_cast<std::size_t>(i)],
                   values_of<float>(group.world_ranks()[static_cast<std::size_t>(from)], 100 * i * i, i))) {
      return fmt::format("message {}; ", i);
    }
  }
  return "";
}

std::string check_group(Communicator& group) {
  std::string wrong;
  for (const std::int64_t part : {0, 1, 63, 20011}) {
    wrong += check_gather<float>(group, part) + check_gather<std::uint8_t>(group, part);
    wrong += check_sums<double>(group, part) + check_sums<float>(group, part) + check_sums<std::int64_t>(group, part);
  }
  wrong += check_sums<float>(group, 400'003);
  for (int dry = -1; dry < group.size(); ++dry) wrong += check_all_to_all(group, dry);
  wrong += check_started(group) + check_messages(group);
  return wrong.empty() ? "" : fmt::format("group {} of {}: {}", group.name(), group.size(), wrong);
}

}  // namespace

std::string check_exchanges(comm::Communicator& world) {
  std::string wrong = check_group(world);
  std::vector<int> backwards;
  std::vector<int> same_parity;
  for (int rank = world.size() - 1; rank >= 0; --rank) {
    backwards.push_back(rank);
    if (rank % 2 == world.rank() % 2) same_parity.push_back(rank);
  }
  const auto reversed = world.subgroup(backwards, "reversed");
  const auto again = world.subgroup(backwards, "again");
  const auto parity = world.subgroup(same_parity, "parity");
  const int pair = world.rank() / 2 * 2;
  const std::vector<int> neighbours = pair + 1 < world.size() ? std::vector<int>{pair, pair + 1} : std::vector<int>{pair};
  const auto neighbour = world.subgroup(neighbours, "neighbour");
  std::vector<int> halves;
  for (int rank = 0; rank < parity->size(); ++rank) {
    if (rank % 2 == parity->rank() % 2) halves.push_back(rank);
  }
  const auto quarter = parity->subgroup(halves, "quarter");
  for (const int rank : quarter->world_ranks()) {
    if (rank % 2 != world.rank() % 2) wrong += "quarter has a rank of the other parity; ";
  }
  if (reversed->world_ranks()[0] != world.size() - 1 || me(*reversed) != world.rank()) wrong += "ranks of the reversed group; ";

  // Messages of two groups of the same ranks do not meet: those of `again` are taken first.
  if (world.size() > 1 && reversed->rank() < 2) {
    std::vector<double> first{1.0};
    std::vector<double> second{2.0};
    if (reversed->rank() == 0) {
      const Handle a = reversed->start_send(view_of(first), 1, 7);
      const Handle b = again->start_send(view_of(second), 1, 7);
    } else {
      std::vector<double> got{0.0};
      again->receive(view_of(got), 0, 7);
      if (got[0] != 2.0) wrong += "a message crossed from one group to another; ";
      reversed->receive(view_of(got), 0, 7);
      if (got[0] != 1.0) wrong += "a message was lost between groups; ";
    }
  }
  for (comm::Communicator* group : {reversed.get(), again.get(), parity.get(), neighbour.get(), quarter.get()})
    wrong += check_group(*group);
  return wrong;
}

std::string check_long_message(comm::Communicator& world, std::int64_t bytes) {
  const auto byte_at = [](std::int64_t i) { return static_cast<std::uint8_t>((i * 0x9e3779b9) >> 13); };
  std::vector<std::uint8_t> values(static_cast<std::size_t>(bytes));
  if (world.rank() == 0) {
    for (std::int64_t i = 0; i < bytes; ++i) values[static_cast<std::size_t>(i)] = byte_at(i);
    world.send(view_of(values), 1, 3);
  } else if (world.rank() == 1) {
    world.receive(view_of(values), 0, 3);
    for (std::int64_t i = 0; i < bytes; ++i) {
      if (values[static_cast<std::size_t>(i)] != byte_at(i)) return fmt::format("byte {} of a message of {}; ", i, bytes);
    }
  }
  std::fill(values.begin(), values.end(), std::uint8_t{0});
  if (world.rank() == 1) {
    for (std::int64_t i = 0; i < bytes; ++i) values[static_cast<std::size_t>(i)] = byte_at(i + 1);
  }
  world.broadcast(view_of(values), 1);
  for (std::int64_t i = 0; i < bytes; ++i) {
    if (values[static_cast<std::size_t>(i)] != byte_at(i + 1)) return fmt::format("byte {} of a broadcast of {}; ", i, bytes);
  }
  return "";
}

}  // namespace hadal::test
