// Guards: each chunk runs once, for any number of threads and chunks; exceptions, nested and concurrent loops, resizing, sleeping
// workers.
#include "core/parallel_for.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace hadal {
namespace {

class ParallelFor : public testing::Test {
 protected:
  void TearDown() override { set_num_threads(available_cores()); }
};

void expect_each_once(std::int64_t chunks) {
  std::vector<std::atomic<int>> calls(static_cast<std::size_t>(chunks));
  parallel_for(chunks, [&](std::int64_t chunk) {
    EXPECT_LT(thread_index(), num_threads());
    calls[static_cast<std::size_t>(chunk)].fetch_add(1, std::memory_order_relaxed);
  });
  for (const auto& count : calls) ASSERT_EQ(count.load(), 1);
}

TEST_F(ParallelFor, RunsEachChunkOnce) {
  for (const int threads : {1, 2, 5}) {
    set_num_threads(threads);
    EXPECT_EQ(num_threads(), threads);
    for (const std::int64_t chunks : {0, 1, 2, 3, 100}) expect_each_once(chunks);
    for (int repeat = 0; repeat < 2000; ++repeat) expect_each_once(7);
  }
}

TEST_F(ParallelFor, WakesSleepingWorkers) {
  set_num_threads(3);
  for (int repeat = 0; repeat < 5; ++repeat) {
    std::this_thread::sleep_for(std::chrono::milliseconds(8));
    expect_each_once(50);
  }
}

TEST_F(ParallelFor, WorkersTakePart) {
  set_num_threads(2);
  std::atomic<bool> other{false};
  const auto start = std::chrono::steady_clock::now();
  parallel_for(2, [&](std::int64_t) {
    if (thread_index() != 0) other = true;
    while (!other && std::chrono::steady_clock::now() - start < std::chrono::seconds(20)) std::this_thread::yield();
  });
  EXPECT_TRUE(other);
}

TEST_F(ParallelFor, RethrowsTheExceptionOfTheLowestChunk) {
  set_num_threads(4);
  for (int repeat = 0; repeat < 50; ++repeat) {
    try {
      parallel_for(64, [](std::int64_t chunk) {
        if (chunk % 10 == 3) throw std::runtime_error(std::to_string(chunk));
      });
      FAIL() << "no exception";
    } catch (const std::runtime_error& error) {
      EXPECT_STREQ(error.what(), "3");
    }
    expect_each_once(9);
  }
}

TEST_F(ParallelFor, NestedLoopsRunInside) {
  set_num_threads(3);
  std::atomic<int> calls{0};
  parallel_for(6, [&](std::int64_t) { parallel_for(5, [&](std::int64_t) { calls.fetch_add(1); }); });
  EXPECT_EQ(calls.load(), 30);
}

TEST_F(ParallelFor, LoopsOfSeveralThreadsDoNotMix) {
  set_num_threads(3);
  std::vector<std::jthread> callers;
  for (int caller = 0; caller < 4; ++caller) {
    callers.emplace_back([] {
      for (int repeat = 0; repeat < 500; ++repeat) expect_each_once(11);
    });
  }
}

TEST_F(ParallelFor, RangesCoverTheCount) {
  std::vector<std::atomic<int>> calls(103);
  parallel_ranges(103, 10, [&](std::int64_t begin, std::int64_t end) {
    EXPECT_LE(end - begin, 10);
    for (std::int64_t i = begin; i < end; ++i) calls[static_cast<std::size_t>(i)].fetch_add(1);
  });
  for (const auto& count : calls) EXPECT_EQ(count.load(), 1);
}

// A pool that is stopped right after a loop, while its workers come out of it, ends: none waits for a loop that will not come.
/// A worker that a stop meets between looking at a loop and entering it must see the stop.
TEST_F(ParallelFor, StopsRightAfterALoop) {
  const int threads = num_threads();
  std::atomic<std::int64_t> sum{0};
  for (int i = 0; i < 3000; ++i) {
    set_num_threads(1 + i % 3);
    parallel_for(4, [&](std::int64_t chunk) { sum.fetch_add(chunk, std::memory_order_relaxed); });
  }
  set_num_threads(threads);
  EXPECT_EQ(sum.load(), 3000 * 6);
}

}  // namespace
}  // namespace hadal
