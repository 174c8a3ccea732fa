#include "tests/support/device_exchange_checks.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

#include "core/copy.h"

namespace hadal::test {
namespace {

using comm::Communicator;
using comm::Handle;

std::uint64_t mixed(int rank, std::int64_t index, int salt) {
  return (static_cast<std::uint64_t>(rank + 131 * salt) * 0x9e3779b97f4a7c15u + static_cast<std::uint64_t>(index)) * 0xbf58476d1ce4e5b9u;
}

enum class Values {
  kWhole,   ///< small integers: their sum has the same bits in any order
  kSpread,  ///< magnitudes far apart
};

template <class T>
Tensor values_of(int rank, std::int64_t numel, Values values, int salt = 0) {
  Tensor tensor = Tensor::empty({numel}, kDTypeOf<T>);
  for (std::int64_t i = 0; i < numel; ++i) {
    const std::uint64_t bits = mixed(rank, i, salt);
    const double x = values == Values::kWhole ? static_cast<double>(bits >> 54) - 512
                                              : (static_cast<double>(bits >> 11) * 0x1p-53 - 0.5) * (1 << (bits % 19));
    tensor.as<T>()[i] = static_cast<T>(x);
  }
  return tensor;
}

int me(const Communicator& group) { return group.world_ranks()[static_cast<std::size_t>(group.rank())]; }

class Checks {
 public:
  Checks(Communicator& group, Device device, bool host_order) : group_(group), device_(device), stream_(stream_of(device)), host_order_(host_order) {}

  std::string all() {
    for (const std::int64_t part : {1, 63, 20011, 400'003}) {
      check_gather<float>(part);
      check_gather<std::uint8_t>(part);
      check_sums<double>(part);
      check_sums<float>(part);
      check_sums<std::int64_t>(part);
    }
    check_bf16_gather();
    check_packed();
    for (int root = 0; root < group_.size(); ++root) check_broadcast(root);
    for (int dry = -1; dry < group_.size(); ++dry) check_all_to_all(dry);
    check_started();
    check_messages("staged");
    group_.open_channels();
    check_messages("through channels");
    check_crossing_messages();
    return wrong_.empty() ? "" : fmt::format("device memory, group {} of {} ({}): {}", group_.name(), group_.size(), group_.description(), wrong_);
  }

 private:
  Tensor up(ConstView host) { return to_device(stream_, host, device_); }
  Tensor down(ConstView device) { return to_host(stream_, device); }

  void expect_bits(ConstView got_on_device, ConstView want, const std::string& what) {
    const Tensor got = down(got_on_device);
    if (got.bytes() != want.bytes() || (got.bytes() > 0 && std::memcmp(got.view().data, want.data, want.bytes()) != 0)) wrong_ += what + "; ";
  }

  /// A sum of kSpread values: close to the host's.
  template <class T>
  void expect_close(ConstView got_on_device, ConstView want, const std::string& what) {
    const Tensor got = down(got_on_device);
    double largest = 0, off = 0;
    for (std::int64_t i = 0; i < want.numel(); ++i) {
      largest = std::max(largest, std::abs(static_cast<double>(want.as<T>()[i])));
      off = std::max(off, std::abs(static_cast<double>(got.as<T>()[i]) - static_cast<double>(want.as<T>()[i])));
    }
    const double tolerance = kDTypeOf<T> == DType::kF64 ? 1e-15 : 1e-6;
    if (!(off <= tolerance * group_.size() * largest)) wrong_ += fmt::format("{} is off by {} of {}; ", what, off, largest);
  }

  template <class T>
  void check_gather(std::int64_t part) {
    const Tensor mine = values_of<T>(me(group_), part, Values::kWhole);
    Tensor want = Tensor::empty({part * group_.size()}, kDTypeOf<T>);
    group_.all_gather(mine, want);
    const std::string what = fmt::format("gather of {} {}", part, name_of(kDTypeOf<T>));
    Tensor all = Tensor::zeros(want.shape(), want.dtype(), device_);
    const Tensor there = up(mine);
    group_.all_gather(there, all);
    expect_bits(all, want, what);
    Tensor in_place = Tensor::zeros(want.shape(), want.dtype(), device_);
    const View own = in_place.view().rows(group_.rank() * part, (group_.rank() + 1) * part);
    copy(stream_, mine, own);
    group_.all_gather(own, in_place);
    expect_bits(in_place, want, what + " in place");
  }

  void check_bf16_gather() {
    Tensor mine = Tensor::empty({1001}, DType::kBf16);
    for (std::int64_t i = 0; i < mine.numel(); ++i) mine.as<Bf16>()[i] = Bf16{static_cast<std::uint16_t>(mixed(me(group_), i, 9) >> 48)};
    Tensor want = Tensor::empty({1001 * group_.size()}, DType::kBf16);
    group_.all_gather(mine, want);
    const Tensor there = up(mine);
    Tensor all = Tensor::zeros(want.shape(), want.dtype(), device_);
    group_.all_gather(there, all);
    expect_bits(all, want, "gather of bf16");
  }

  template <class T>
  void check_sums(std::int64_t part) {
    for (const Values values : {Values::kWhole, Values::kSpread}) {
      const std::int64_t numel = part * group_.size();
      const Tensor mine = values_of<T>(me(group_), numel, values);
      Tensor want = mine.clone(), want_part = Tensor::empty({part}, kDTypeOf<T>);
      group_.all_reduce_sum(want);
      group_.reduce_scatter_sum(mine, want_part);
      const bool bits = host_order_ || values == Values::kWhole;
      const auto expect = [&](ConstView got, ConstView host, const std::string& what) {
        const std::string named = fmt::format("{} of {} {}", what, numel, name_of(kDTypeOf<T>));
        bits ? expect_bits(got, host, named) : expect_close<T>(got, host, named);
      };
      Tensor reduced = up(mine), again = up(mine);
      group_.all_reduce_sum(reduced.view());
      group_.start_all_reduce_sum(again).wait();
      expect(reduced, want, "all-reduce");
      expect_bits(again, down(reduced), "a second all-reduce");
      Tensor all = up(mine), got_part = Tensor::zeros({part}, kDTypeOf<T>, device_);
      group_.reduce_scatter_sum(all, got_part);
      expect(got_part, want_part, "reduce-scatter");
      expect_bits(all, mine, "what a reduce-scatter must not change");
      const View own = all.view().rows(group_.rank() * part, (group_.rank() + 1) * part);
      group_.reduce_scatter_sum(all, own);
      expect_bits(own, down(got_part), "reduce-scatter in place");
    }
  }

  void check_packed() {
    std::vector<Tensor> want, got;
    for (const std::int64_t numel : {3, 0, 200'000, 400'001, 7}) {
      want.push_back(values_of<float>(me(group_), numel, Values::kWhole, 1));
      want.push_back(values_of<double>(me(group_), numel, Values::kWhole, 2));
      want.push_back(values_of<std::int64_t>(me(group_), numel, Values::kWhole, 3));
    }
    std::vector<View> there, here;
    for (Tensor& tensor : want) got.push_back(up(tensor));
    for (Tensor& tensor : got) there.push_back(tensor);
    for (Tensor& tensor : want) here.push_back(tensor);
    group_.all_reduce_sum(std::span<const View>(there));
    group_.all_reduce_sum(std::span<const View>(here));
    for (std::size_t t = 0; t < want.size(); ++t) expect_bits(got[t], want[t], fmt::format("packed sum of tensor {}", t));
  }

  void check_broadcast(int root) {
    const Tensor want = values_of<float>(group_.world_ranks()[static_cast<std::size_t>(root)], 3001, Values::kSpread);
    Tensor got = up(values_of<float>(me(group_), 3001, Values::kSpread));
    group_.broadcast(got, root);
    expect_bits(got, want, fmt::format("broadcast from {}", root));
  }

  /// Uneven rows, some none; rank `dry` gets and sends nothing.
  void check_all_to_all(int dry) {
    constexpr std::int64_t kWidth = 37;
    const auto rows_between = [dry](int a, int b) -> std::int64_t { return a == dry || b == dry ? 0 : (300 * a + 5 * b + a * b) % 701; };
    std::vector<std::int64_t> send_rows, recv_rows;
    for (int rank = 0; rank < group_.size(); ++rank) {
      send_rows.push_back(rows_between(group_.rank(), rank));
      recv_rows.push_back(rows_between(rank, group_.rank()));
    }
    const std::int64_t sent = std::reduce(send_rows.begin(), send_rows.end()), received = std::reduce(recv_rows.begin(), recv_rows.end());
    Tensor send = values_of<float>(me(group_), sent * kWidth, Values::kSpread);
    // One row of spare space, which must not be touched.
    Tensor want = values_of<float>(0, (received + 1) * kWidth, Values::kWhole), got = up(want), there = up(send);
    const auto as_rows = [](View view) { return view.reshape({view.numel() / kWidth, kWidth}); };
    group_.all_to_all(as_rows(send), send_rows, as_rows(want), recv_rows);
    group_.all_to_all(as_rows(there), send_rows, as_rows(got), recv_rows);
    expect_bits(got, want, fmt::format("all-to-all without rank {}", dry));
  }

  /// Several under way at once, waited for in another order on each rank; what they read is made after a long queue of work, and
  /// overwritten as soon as they have been waited for.
  void check_started() {
    constexpr std::int64_t kNumel = 50'021;
    constexpr int kEach = 4;
    std::vector<Tensor> sums, mines, alls, want_sums, want_alls;
    for (int i = 0; i < kEach; ++i) {
      mines.push_back(values_of<double>(me(group_), kNumel, Values::kWhole, i));
      want_sums.push_back(mines.back().clone());
      want_alls.push_back(Tensor::empty({kNumel * group_.size()}, DType::kF64));
      group_.all_gather(mines.back(), want_alls.back());
      group_.all_reduce_sum(want_sums.back().view());
    }
    Tensor long_work = Tensor::zeros({std::int64_t{20} << 20}, DType::kU8, device_);
    for (int i = 0; i < 20; ++i) fill_zero(stream_, long_work);
    std::vector<Tensor> sources;
    std::vector<Handle> handles;
    for (int i = 0; i < kEach; ++i) {
      sums.push_back(up(mines[static_cast<std::size_t>(i)]));
      sources.push_back(sums.back().clone());
      alls.push_back(Tensor::zeros({kNumel * group_.size()}, DType::kF64, device_));
      handles.push_back(group_.start_all_reduce_sum(sums.back()));
      handles.push_back(group_.start_all_gather(sources.back().view(), alls.back()));
    }
    if (group_.rank() % 2 == 1) std::ranges::reverse(handles);
    for (Handle& handle : handles) handle.wait();
    for (Tensor& source : sources) source.fill_zero();
    for (int i = 0; i < kEach; ++i) {
      const auto at = static_cast<std::size_t>(i);
      expect_bits(sums[at], want_sums[at], fmt::format("started sum {}", i));
      expect_bits(alls[at], want_alls[at], fmt::format("started gather {}", i));
    }
  }

  /// Around the ring, in order.
  void check_messages(const std::string& how) {
    if (group_.size() == 1) return;
    const int to = (group_.rank() + 1) % group_.size(), from = (group_.rank() + group_.size() - 1) % group_.size();
    constexpr int kMessages = 5;
    std::vector<Tensor> out, in;
    std::vector<Handle> handles;
    for (int i = 0; i < kMessages; ++i) {
      out.push_back(up(values_of<float>(me(group_), 70'001 * i, Values::kSpread, i)));
      in.push_back(Tensor::zeros(out.back().shape(), DType::kF32, device_));
      handles.push_back(group_.start_send(out.back().view(), to, i));
    }
    for (int i = 0; i < kMessages; ++i) group_.receive(in[static_cast<std::size_t>(i)], from, i);
    handles.clear();
    for (int i = 0; i < kMessages; ++i) {
      const Tensor want = values_of<float>(group_.world_ranks()[static_cast<std::size_t>(from)], 70'001 * i, Values::kSpread, i);
      expect_bits(in[static_cast<std::size_t>(i)], want, fmt::format("message {} {}", i, how));
    }
  }

  /// As in a pipeline: the answer of the next rank is asked for before the question is sent that it answers.
  void check_crossing_messages() {
    constexpr std::int64_t kNumel = 1'000'003;
    const int rank = group_.rank();
    const bool first = rank == 0, last = rank == group_.size() - 1;
    const auto question_of = [&](int asker) { return values_of<float>(group_.world_ranks()[static_cast<std::size_t>(asker)], kNumel, Values::kSpread); };
    Tensor question = up(question_of(rank)), asked = Tensor::zeros({kNumel}, DType::kF32, device_), answer = asked.clone();
    Handle answered, sent, returned;
    if (!last) {
      answered = group_.start_receive(answer, rank + 1, 1);
      sent = group_.start_send(question.view(), rank + 1, 0);
    }
    if (!first) {
      group_.receive(asked, rank - 1, 0);
      returned = group_.start_send(asked.view(), rank - 1, 1);
      expect_bits(asked, question_of(rank - 1), "a question to the next rank");
    }
    answered.wait();
    if (!last) expect_bits(answer, question_of(rank), "an answer that was asked for early");
  }

  Communicator& group_;
  Device device_;
  Stream stream_;
  bool host_order_;
  std::string wrong_;
};

}  // namespace

std::string check_device_exchanges(Communicator& world, Device device, bool host_order) {
  std::string wrong = Checks(world, device, host_order).all();
  std::vector<int> backwards, same_parity;
  for (int rank = world.size() - 1; rank >= 0; --rank) {
    backwards.push_back(rank);
    if (rank % 2 == world.rank() % 2) same_parity.push_back(rank);
  }
  for (const std::vector<int>& members : {backwards, same_parity}) {
    const auto group = world.subgroup(members, members.size() == backwards.size() ? "reversed" : "parity");
    wrong += Checks(*group, device, host_order).all();
  }
  return wrong;
}

}  // namespace hadal::test
