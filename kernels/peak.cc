#include "kernels/peak.h"

#include <time.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <map>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/tensor.h"
#include "kernels/cpu/simd/peak_loop.h"
#include "kernels/cpu/simd/tables.h"

HADAL_SIMD_PICK(PeakLoop, peak_loop)

namespace hadal::kernels {
namespace {

/// Seconds that this thread has run: time in which others had the core does not count.
double thread_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

/// Runs body(thread) on `threads` threads that start together; the sum of what they return.
template <class Body>
double together(int threads, const Body& body) {
  std::atomic<int> ready{0};
  std::vector<double> rates(static_cast<std::size_t>(threads));
  {
    std::vector<std::jthread> workers;
    for (int index = 0; index < threads; ++index) {
      workers.emplace_back([&, index] {
        ready.fetch_add(1);
        while (ready.load() < threads) std::this_thread::yield();
        rates[static_cast<std::size_t>(index)] = body(index);
      });
    }
  }
  double sum = 0;
  for (const double rate : rates) sum += rate;
  return sum;
}

template <class T>
double measured_flops(int threads) {
  const simd::PeakLoop<T>& loop = simd::peak_loop<T>();
  constexpr std::int64_t kSteps = 100'000;
  double best = 0;
  for (int round = 0; round < 3; ++round) {
    best = std::max(best, together(threads, [&](int) {
                      double fastest = 0;
                      volatile T sink = 0;
                      for (int batch = 0; batch < 16; ++batch) {
                        const double start = thread_seconds();
                        sink = loop.run(kSteps, static_cast<T>(0.999), static_cast<T>(1e-3));
                        fastest =
                            std::max(fastest, static_cast<double>(kSteps * loop.flops_per_step) / (thread_seconds() - start));
                      }
                      (void)sink;
                      return fastest;
                    }));
  }
  return best;
}

double measured_copy(int threads) {
  constexpr std::int64_t kBytes = 48 << 20;
  std::vector<Tensor> from, to;
  for (int index = 0; index < threads; ++index) {
    from.push_back(Tensor::zeros({kBytes}, DType::kU8));
    to.push_back(Tensor::zeros({kBytes}, DType::kU8));
  }
  double best = 0;
  for (int round = 0; round < 3; ++round) {
    best = std::max(best, together(threads, [&](int index) {
                      const auto at = static_cast<std::size_t>(index);
                      const double start = thread_seconds();
                      std::memcpy(to[at].view().data, from[at].view().data, static_cast<std::size_t>(kBytes));
                      return 2.0 * static_cast<double>(kBytes) / (thread_seconds() - start);
                    }));
  }
  return best;
}

template <class Key, class Measure>
double remembered(const Key& key, const Measure& measure) {
  static std::mutex mutex;
  static std::map<Key, double> known;
  const std::scoped_lock lock(mutex);
  const auto found = known.find(key);
  return found != known.end() ? found->second : known.emplace(key, measure()).first->second;
}

}  // namespace

double measure_peak_flops(DType dtype, int threads) {
  HADAL_CHECK(threads >= 1 && (dtype == DType::kF32 || dtype == DType::kF64), "peak of {} on {} threads", name_of(dtype),
              threads);
  return dtype == DType::kF32 ? measured_flops<float>(threads) : measured_flops<double>(threads);
}

double peak_flops(DType dtype, int threads) {
  return remembered(std::pair{dtype, threads}, [&] { return measure_peak_flops(dtype, threads); });
}

double copy_bandwidth(int threads) {
  HADAL_CHECK(threads >= 1, "copy bandwidth of {} threads", threads);
  return remembered(threads, [&] { return measured_copy(threads); });
}

}  // namespace hadal::kernels
