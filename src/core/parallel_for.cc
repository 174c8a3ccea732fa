#include "core/parallel_for.h"

#include <sched.h>

#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "core/error.h"

namespace hadal {
namespace {

thread_local int t_index = 0;
thread_local bool t_inside = false;

// Workers spin a while before they sleep: a training step enters thousands of short loops.
constexpr int kSpins = 20000;

class Pool {
 public:
  ~Pool() { stop(); }

  int size() const { return static_cast<int>(workers_.size()) + 1; }

  void resize(int count) {
    stop();
    stopping_ = false;
    for (int index = 1; index < count; ++index) {
      workers_.emplace_back([this, index, seen = generation_.load()] { work(index, seen); });
    }
  }

  void run(std::int64_t num_chunks, void (*call)(void*, std::int64_t), void* context) {
    call_ = call;
    context_ = context;
    num_chunks_ = num_chunks;
    next_.store(0, std::memory_order_relaxed);
    failed_chunk_ = num_chunks;
    failure_ = nullptr;
    running_.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
    {
      const std::scoped_lock lock(mutex_);
      generation_.fetch_add(1, std::memory_order_release);
    }
    if (sleepers_.load(std::memory_order_acquire) > 0) wake_.notify_all();
    drain();
    for (int spin = 0; running_.load(std::memory_order_acquire) > 0; ++spin) {
      if (spin > kSpins) std::this_thread::yield();
    }
    if (failure_) std::rethrow_exception(failure_);
  }

 private:
  void drain() {
    t_inside = true;
    for (;;) {
      const std::int64_t chunk = next_.fetch_add(1, std::memory_order_relaxed);
      if (chunk >= num_chunks_) break;
      try {
        call_(context_, chunk);
      } catch (...) {
        const std::scoped_lock lock(mutex_);
        if (chunk < failed_chunk_) {
          failed_chunk_ = chunk;
          failure_ = std::current_exception();
        }
      }
    }
    t_inside = false;
  }

  void work(int index, std::uint64_t seen) {
    t_index = index;
    for (;;) {
      int spin = 0;
      while (generation_.load(std::memory_order_acquire) == seen && ++spin < kSpins) {
      }
      if (generation_.load(std::memory_order_acquire) == seen) {
        std::unique_lock lock(mutex_);
        sleepers_.fetch_add(1, std::memory_order_release);
        wake_.wait(lock, [&] { return generation_.load(std::memory_order_acquire) != seen; });
        sleepers_.fetch_sub(1, std::memory_order_release);
      }
      ++seen;
      if (stopping_) return;
      drain();
      running_.fetch_sub(1, std::memory_order_release);
    }
  }

  void stop() {
    if (workers_.empty()) return;
    stopping_ = true;
    {
      const std::scoped_lock lock(mutex_);
      generation_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    for (std::thread& worker : workers_) worker.join();
    workers_.clear();
  }

  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<std::uint64_t> generation_{0};
  std::atomic<int> sleepers_{0};
  std::atomic<int> running_{0};
  std::atomic<std::int64_t> next_{0};
  std::atomic<bool> stopping_{false};
  std::int64_t num_chunks_ = 0;
  std::int64_t failed_chunk_ = 0;
  void (*call_)(void*, std::int64_t) = nullptr;
  void* context_ = nullptr;
  std::exception_ptr failure_;
};

Pool& pool() {
  static Pool instance;
  static const bool once = (instance.resize(available_cores()), true);
  (void)once;
  return instance;
}

}  // namespace

int available_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  const int count = CPU_COUNT(&set);
  return count > 0 ? count : 1;
}

int num_threads() { return pool().size(); }

void set_num_threads(int count) {
  HADAL_CHECK(count >= 1, "{} threads", count);
  HADAL_CHECK(!t_inside, "set_num_threads inside parallel_for");
  if (count != pool().size()) pool().resize(count);
}

int thread_index() { return t_index; }

namespace detail {

void run_chunks(std::int64_t num_chunks, void (*call)(void*, std::int64_t), void* context) {
  if (num_chunks <= 0) return;
  if (num_chunks == 1 || t_inside || pool().size() == 1) {
    for (std::int64_t chunk = 0; chunk < num_chunks; ++chunk) call(context, chunk);
    return;
  }
  pool().run(num_chunks, call, context);
}

}  // namespace detail
}  // namespace hadal
