#include "core/parallel_for.h"

#include <sched.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "core/error.h"

namespace hadal {
namespace {

thread_local int t_index = 0;
thread_local bool t_inside = false;

// A training step enters thousands of short loops, so a worker first spins (some 30 us), then offers its core to others but
// keeps looking, and sleeps only when nothing came for a while: waking it costs tens of microseconds.
constexpr int kSpins = 1000;
constexpr std::chrono::milliseconds kAwake{3};

/// Tells the core that this thread only waits; the instruction comes from CMakeLists.txt ("pause" on x86, "yield" on Arm).
void relax() { asm volatile(HADAL_RELAX); }

/// Waits until done(): spins, then yields, for at most `limit` (for ever when zero). False when the limit passed.
template <class Done>
bool wait_awake(const Done& done, std::chrono::milliseconds limit) {
  for (int spin = 0; spin < kSpins; ++spin) {
    if (done()) return true;
    relax();
  }
  const auto start = std::chrono::steady_clock::now();
  for (;;) {
    for (int turn = 0; turn < 16; ++turn) {
      if (done()) return true;
      std::this_thread::yield();
    }
    if (limit.count() != 0 && std::chrono::steady_clock::now() - start > limit) return done();
  }
}

// One loop at a time. `gate_` holds the number of the loop, whether it is open, and how many workers are inside: a worker
// enters an open loop by counting itself in, and the caller closes the loop when no chunk is left and waits only for those
// inside. A worker that the system has not scheduled in time is never waited for.
class Pool {
 public:
  Pool() { start(available_cores()); }
  ~Pool() { stop(); }

  int size() const { return size_.load(std::memory_order_relaxed); }

  void resize(int count) {
    while (busy_.exchange(true, std::memory_order_acquire)) std::this_thread::yield();
    stop();
    start(count);
    busy_.store(false, std::memory_order_release);
  }

  /// False when another thread's loop holds the pool.
  bool try_run(std::int64_t num_chunks, void (*call)(void*, std::int64_t), void* context) {
    if (busy_.exchange(true, std::memory_order_acquire)) return false;
    call_ = call;
    context_ = context;
    num_chunks_ = num_chunks;
    failed_chunk_ = num_chunks;
    next_.store(0, std::memory_order_relaxed);
    gate_.store(((gate_.load(std::memory_order_relaxed) / kLoop) + 1) * kLoop + kOpen);
    if (sleepers_.load() > 0) {
      { const std::scoped_lock lock(mutex_); }
      wake_.notify_all();
    }
    drain();
    gate_.fetch_and(~kOpen, std::memory_order_acq_rel);
    wait_awake([this] { return (gate_.load(std::memory_order_acquire) & kInside) == 0; }, std::chrono::milliseconds{0});
    const std::exception_ptr failure = std::exchange(failure_, nullptr);
    busy_.store(false, std::memory_order_release);
    if (failure) std::rethrow_exception(failure);
    return true;
  }

 private:
  static constexpr std::uint64_t kInside = 0xffff, kOpen = 0x10000, kLoop = 0x20000;

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
    const auto changed = [&] { return gate_.load(std::memory_order_acquire) / kLoop != seen; };
    for (;;) {
      if (!wait_awake(changed, kAwake)) {
        std::unique_lock lock(mutex_);
        sleepers_.fetch_add(1);
        wake_.wait(lock, [&] { return gate_.load() / kLoop != seen; });
        sleepers_.fetch_sub(1);
      }
      // In this order: a gate that stop() has moved comes with stopping_, while a stop between the two reads moves the gate once more.
      std::uint64_t gate = gate_.load(std::memory_order_acquire);
      if (stopping_.load(std::memory_order_acquire)) return;
      // Not what the exchange below may find later: a stop that moved the gate meanwhile would count as seen, and be missed.
      seen = gate / kLoop;
      while ((gate & kOpen) != 0) {
        if (gate_.compare_exchange_weak(gate, gate + 1, std::memory_order_acq_rel, std::memory_order_acquire)) {
          drain();
          gate_.fetch_sub(1, std::memory_order_release);
          break;
        }
      }
    }
  }

  void start(int count) {
    size_.store(count, std::memory_order_relaxed);
    const std::uint64_t seen = gate_.load(std::memory_order_relaxed) / kLoop;
    for (int index = 1; index < count; ++index) workers_.emplace_back([this, index, seen] { work(index, seen); });
  }

  void stop() {
    stopping_.store(true, std::memory_order_release);
    gate_.fetch_add(kLoop);
    { const std::scoped_lock lock(mutex_); }
    wake_.notify_all();
    for (std::thread& worker : workers_) worker.join();
    workers_.clear();
    stopping_.store(false, std::memory_order_release);
  }

  alignas(64) std::atomic<std::uint64_t> gate_{0};
  alignas(64) std::atomic<std::int64_t> next_{0};
  alignas(64) std::atomic<int> sleepers_{0};
  std::atomic<bool> stopping_{false};
  std::atomic<bool> busy_{false};
  std::atomic<int> size_{1};
  std::int64_t num_chunks_ = 0;
  void (*call_)(void*, std::int64_t) = nullptr;
  void* context_ = nullptr;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::int64_t failed_chunk_ = 0;
  std::exception_ptr failure_;
  std::vector<std::thread> workers_;
};

Pool& pool() {
  static Pool instance;
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
  if (num_chunks > 1 && !t_inside && pool().size() > 1 && pool().try_run(num_chunks, call, context)) return;
  for (std::int64_t chunk = 0; chunk < num_chunks; ++chunk) call(context, chunk);
}

}  // namespace detail
}  // namespace hadal
