// Data parallelism inside one process: a pool of threads and a loop over fixed chunks.
// Results must not depend on the number of threads: chunks are fixed by the caller, threads only choose who runs which.
#pragma once

#include <cstdint>
#include <type_traits>

namespace hadal {

/// Threads used by parallel_for, the calling one included. Default: cores in the affinity mask.
int num_threads();
/// 1 <= count; takes effect at the next parallel_for. Not while one runs.
void set_num_threads(int count);
/// Cores that this process may run on (affinity mask).
int available_cores();
/// Index of the calling thread inside parallel_for: 0 .. num_threads() - 1 (0 outside).
int thread_index();

namespace detail {
void run_chunks(std::int64_t num_chunks, void (*call)(void*, std::int64_t), void* context);
}  // namespace detail

/// Calls body(chunk) for chunk = 0 .. num_chunks - 1, each once, on any thread; returns when all are done.
/// The first exception (lowest chunk) is rethrown. Nested calls, and calls while another thread's loop runs, are serial.
template <class Body>
void parallel_for(std::int64_t num_chunks, Body&& body) {
  detail::run_chunks(
      num_chunks, [](void* context, std::int64_t chunk) { (*static_cast<std::remove_reference_t<Body>*>(context))(chunk); },
      const_cast<void*>(static_cast<const void*>(&body)));
}

/// Calls body(begin, end) for consecutive ranges of at most `grain` elements covering [0, count).
template <class Body>
void parallel_ranges(std::int64_t count, std::int64_t grain, Body&& body) {
  const std::int64_t num_chunks = (count + grain - 1) / grain;
  parallel_for(num_chunks, [&](std::int64_t chunk) {
    const std::int64_t begin = chunk * grain;
    body(begin, begin + grain < count ? begin + grain : count);
  });
}

}  // namespace hadal
