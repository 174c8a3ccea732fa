#include "comm/local/local_group.h"

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <mutex>
#include <thread>

#include "comm/ordered_sum.h"
#include "core/error.h"
#include "core/parallel_for.h"

namespace hadal::comm {
namespace {

/// What the ranks of one group show each other. A rank writes its own entry before a barrier; others read it until the next.
struct Board {
  explicit Board(int num_ranks) : size(num_ranks), entries(static_cast<std::size_t>(num_ranks)) {}

  struct Entry {
    const void* data = nullptr;
    std::size_t bytes = 0;
    DType dtype = DType::kU8;
    std::int64_t number = 0;
  };

  void wait() {
    std::unique_lock lock(mutex);
    if (failed) throw ContractError("another rank of this group failed");
    const std::uint64_t mine = generation;
    if (++arrived == size) {
      arrived = 0;
      ++generation;
      changed.notify_all();
      return;
    }
    changed.wait(lock, [&] { return generation != mine || failed; });
    if (generation == mine) throw ContractError("another rank of this group failed");
  }

  void fail() {
    const std::scoped_lock lock(mutex);
    failed = true;
    changed.notify_all();
  }

  const int size;
  std::vector<Entry> entries;
  std::vector<std::byte> sums;
  std::mutex mutex;
  std::condition_variable changed;
  int arrived = 0;
  std::uint64_t generation = 0;
  bool failed = false;
};

class LocalCommunicator final : public Communicator {
 public:
  LocalCommunicator(Board& board, int rank) : Communicator(rank, board.size), board_(board) {}
  using Communicator::broadcast;

  std::string description() const override { return fmt::format("local, {} threads", size()); }

  std::int64_t all_reduce_max(std::int64_t value) override {
    mine().number = value;
    board_.wait();
    for (const Board::Entry& entry : board_.entries) value = std::max(value, entry.number);
    board_.wait();
    return value;
  }

  void broadcast(std::span<std::byte> bytes, int root) override {
    HADAL_CHECK(root >= 0 && root < size(), "root {} of {} ranks", root, size());
    mine() = {bytes.data(), bytes.size(), DType::kU8, root};
    board_.wait();
    const Board::Entry& from = board_.entries[static_cast<std::size_t>(root)];
    HADAL_CHECK(from.bytes == bytes.size() && from.number == root,
                "ranks disagree on a broadcast: {} bytes of rank {}, {} of rank {}", bytes.size(), root, from.bytes, from.number);
    if (rank() != root && !bytes.empty()) std::memcpy(bytes.data(), from.data, bytes.size());
    board_.wait();
  }

  void barrier() override { board_.wait(); }

  std::vector<std::string> all_gather(std::string_view bytes) override {
    mine() = {bytes.data(), bytes.size(), DType::kU8, 0};
    board_.wait();
    std::vector<std::string> gathered;
    for (const Board::Entry& entry : board_.entries) gathered.emplace_back(static_cast<const char*>(entry.data), entry.bytes);
    board_.wait();
    return gathered;
  }

 protected:
  void sum_in_place(void* values, DType dtype, std::int64_t numel) override {
    const std::size_t bytes = static_cast<std::size_t>(numel) * size_of(dtype);
    mine() = {values, bytes, dtype, numel};
    board_.wait();
    std::vector<const void*> parts;
    const Segment segment = segment_of(numel, rank(), size());
    const std::size_t offset = static_cast<std::size_t>(segment.begin) * size_of(dtype);
    for (const Board::Entry& entry : board_.entries) {
      HADAL_CHECK(entry.dtype == dtype && entry.number == numel, "ranks disagree on a sum: {} x {} here, {} x {} elsewhere",
                  numel, name_of(dtype), entry.number, name_of(entry.dtype));
      parts.push_back(static_cast<const std::byte*>(entry.data) + offset);
    }
    if (is_root()) board_.sums.resize(bytes);
    board_.wait();
    ordered_sum(dtype, board_.sums.data() + offset, parts, segment.end - segment.begin);
    board_.wait();
    std::memcpy(values, board_.sums.data(), bytes);
    board_.wait();
  }

 private:
  Board::Entry& mine() { return board_.entries[static_cast<std::size_t>(rank())]; }

  Board& board_;
};

}  // namespace

void run_local_group(int size, const std::function<void(Communicator&)>& body) {
  HADAL_CHECK(size >= 1, "a group of {} ranks", size);
  const int threads_before = num_threads();
  set_num_threads(1);
  Board board(size);
  std::vector<std::exception_ptr> failures(static_cast<std::size_t>(size));
  std::mutex order;
  int first_failed = -1;
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      try {
        LocalCommunicator communicator(board, rank);
        body(communicator);
      } catch (...) {
        failures[static_cast<std::size_t>(rank)] = std::current_exception();
        {
          const std::scoped_lock lock(order);
          if (first_failed < 0) first_failed = rank;
        }
        board.fail();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  set_num_threads(threads_before);
  if (first_failed >= 0) std::rethrow_exception(failures[static_cast<std::size_t>(first_failed)]);
}

}  // namespace hadal::comm
