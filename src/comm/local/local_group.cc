#include "comm/local/local_group.h"

#include <exception>
#include <mutex>
#include <thread>

#include "comm/local/local_transport.h"
#include "core/error.h"
#include "core/parallel_for.h"

namespace hadal::comm {

void run_local_group(int size, const std::function<void(Communicator&)>& body) {
  HADAL_CHECK(size >= 1, "a group of {} ranks", size);
  const int threads_before = num_threads();
  set_num_threads(1);
  local::Hub hub(size);
  std::vector<std::exception_ptr> failures(static_cast<std::size_t>(size));
  std::mutex order;
  int first_failed = -1;
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      try {
        const Group world = world_group(size);
        Communicator communicator(rank, world, std::make_unique<local::LocalTransport>(hub, world, rank));
        if (size > 1) hub.join(rank, *communicator.ledger());
        body(communicator);
        hub.leave(rank);
      } catch (...) {
        failures[static_cast<std::size_t>(rank)] = std::current_exception();
        {
          const std::scoped_lock lock(order);
          if (first_failed < 0) first_failed = rank;
        }
        hub.fail();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  set_num_threads(threads_before);
  if (first_failed >= 0) std::rethrow_exception(failures[static_cast<std::size_t>(first_failed)]);
}

}  // namespace hadal::comm
