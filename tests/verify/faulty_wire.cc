#include "tests/verify/faulty_wire.h"

#include <algorithm>
#include <exception>
#include <mutex>
#include <optional>
#include <thread>

#include "comm/local/local_transport.h"
#include "core/parallel_for.h"

namespace hadal::verify::test {
namespace {

using Bytes = std::vector<std::byte>;

/// Waits, then falsifies what came.
class FaultyWork final : public comm::Work {
 public:
  FaultyWork(std::unique_ptr<comm::Work> work, std::function<void()> then) : work_(std::move(work)), then_(std::move(then)) {}
  void wait() override {
    work_->wait();
    then_();
  }
  void abandon() override { work_->abandon(); }

 private:
  std::unique_ptr<comm::Work> work_;
  std::function<void()> then_;
};

/// A message that is held back: sent as far as its sender knows.
class NoWork final : public comm::Work {
 public:
  void wait() override {}
  void abandon() override {}
};

class FaultyTransport final : public comm::Transport {
 public:
  FaultyTransport(std::unique_ptr<comm::Transport> inner, comm::Group group, int rank, Fault& fault)
      : inner_(std::move(inner)), group_(std::move(group)), rank_(rank), fault_(fault) {}

  std::string description() const override { return inner_->description(); }
  std::unique_ptr<comm::Transport> subgroup(const comm::Group& group, std::span<const int> members, int rank) override {
    return std::make_unique<FaultyTransport>(inner_->subgroup(group, members, rank), group, rank, fault_);
  }

  std::unique_ptr<comm::Work> begin_all_gather(std::span<const std::byte> mine, std::byte* all) override {
    const Call call = call_of(comm::Op::kAllGather, mine.data());
    Bytes given = give(call, mine);
    auto work = inner_->begin_all_gather(given, all);
    return then_get(std::move(work), call, std::move(given), {all, mine.size() * group_.world_ranks.size()});
  }
  std::unique_ptr<comm::Work> begin_reduce_scatter_sum(const std::byte* all, std::byte* mine, DType dtype, std::int64_t part_numel) override {
    const std::size_t part = static_cast<std::size_t>(part_numel) * size_of(dtype);
    const Call call = call_of(comm::Op::kReduceScatter, all, dtype);
    Bytes given = give(call, {all, part * group_.world_ranks.size()});
    auto work = inner_->begin_reduce_scatter_sum(given.data(), mine, dtype, part_numel);
    return then_get(std::move(work), call, std::move(given), {mine, part});
  }
  std::unique_ptr<comm::Work> begin_all_to_all(const std::byte* send, std::span<const std::size_t> send_bytes, std::byte* recv,
                                               std::span<const std::size_t> recv_bytes) override {
    std::size_t sent = 0, received = 0;
    for (const std::size_t bytes : send_bytes) sent += bytes;
    for (const std::size_t bytes : recv_bytes) received += bytes;
    const Call call = call_of(comm::Op::kAllToAll, send);
    Bytes given = give(call, {send, sent});
    auto work = inner_->begin_all_to_all(given.data(), send_bytes, recv, recv_bytes);
    return then_get(std::move(work), call, std::move(given), {recv, received});
  }
  std::unique_ptr<comm::Work> begin_send(std::span<const std::byte> bytes, int to, int tag) override {
    Call call = call_of(comm::Op::kSend, bytes.data());
    call.peer = to;
    Bytes given = give(call, bytes);
    if (held_ && held_->to == to) {
      inner_->begin_send(given, to, held_->tag)->wait();
      given = std::move(held_->bytes);
      held_.reset();
    } else if (fault_.swap_with_next && fault_.swap_with_next(call)) {
      held_ = Held{std::move(given), to, tag};
      return std::make_unique<NoWork>();
    }
    return inner_->begin_send(given, to, tag);
  }
  std::unique_ptr<comm::Work> begin_receive(std::span<std::byte> bytes, int from, int tag) override {
    Call call = call_of(comm::Op::kReceive, bytes.data());
    call.peer = from;
    return then_get(inner_->begin_receive(bytes, from, tag), call, {}, bytes);
  }
  std::unique_ptr<comm::Work> begin_all_reduce_sum(std::byte* values, DType dtype, std::int64_t numel) override {
    const std::span<std::byte> all{values, static_cast<std::size_t>(numel) * size_of(dtype)};
    const Call call = call_of(comm::Op::kAllReduce, values, dtype);
    Bytes given = give(call, all);
    std::ranges::copy(given, values);
    return then_get(inner_->begin_all_reduce_sum(values, dtype, numel), call, std::move(given), all);
  }
  std::int64_t all_reduce_max(std::int64_t value) override { return inner_->all_reduce_max(value); }
  void broadcast(std::span<std::byte> bytes, int root) override { inner_->broadcast(bytes, root); }
  void barrier() override { inner_->barrier(); }
  std::vector<std::string> all_gather(std::string_view bytes) override { return inner_->all_gather(bytes); }

 private:
  struct Held {
    Bytes bytes;
    int to;
    int tag;
  };

  Call call_of(comm::Op op, const std::byte* memory, DType dtype = DType::kU8) const {
    const comm::Position::Values& at = comm::Position::current();
    return {.op = op, .group = group_.name, .rank = rank_, .size = static_cast<int>(group_.world_ranks.size()), .phase = at.phase,
            .micro_batch = at.micro_batch, .layer = at.layer, .dtype = dtype, .memory = memory};
  }
  Bytes give(const Call& call, std::span<const std::byte> bytes) const {
    Bytes given(bytes.begin(), bytes.end());
    if (fault_.give) fault_.give(call, given);
    return given;
  }
  std::unique_ptr<comm::Work> then_get(std::unique_ptr<comm::Work> work, const Call& call, Bytes given, std::span<std::byte> got) const {
    return std::make_unique<FaultyWork>(std::move(work), [this, call, given = std::move(given), got] {
      if (fault_.get) fault_.get(call, given, got);
    });
  }

  std::unique_ptr<comm::Transport> inner_;
  comm::Group group_;
  int rank_;
  Fault& fault_;
  std::optional<Held> held_;
};

}  // namespace

void run_faulty_group(std::vector<Fault>& faults, const std::function<void(comm::Communicator&)>& body) {
  const auto size = static_cast<int>(faults.size());
  const int threads_before = num_threads();
  set_num_threads(1);
  comm::local::Hub hub(size);
  std::exception_ptr failure;
  std::mutex mutex;
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      try {
        const comm::Group world = comm::world_group(size);
        comm::Communicator communicator(
            rank, world,
            std::make_unique<FaultyTransport>(std::make_unique<comm::local::LocalTransport>(hub, world, rank), world, rank,
                                              faults[static_cast<std::size_t>(rank)]));
        hub.join(rank, *communicator.ledger());
        body(communicator);
        hub.leave(rank);
      } catch (...) {
        {
          const std::scoped_lock lock(mutex);
          if (!failure) failure = std::current_exception();
        }
        hub.fail();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  set_num_threads(threads_before);
  if (failure) std::rethrow_exception(failure);
}

}  // namespace hadal::verify::test
