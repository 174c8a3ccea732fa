// Started under mpirun by watchdog_test.sh: ranks that exchange sums, until one of them gets into trouble on purpose.
// usage: test_mpi_hang TROUBLE DIR PROVEN_S SILENT_S. Writes DIR/ended when the watchdog ends the job.
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <string_view>
#include <thread>

#include "comm/position.h"
#include "comm/world.h"
#include "core/error.h"
#include "train/watchdog.h"

namespace {

using hadal::View;
using hadal::comm::Communicator;
using hadal::comm::Position;

void compute(std::chrono::milliseconds time) {
  const auto end = std::chrono::steady_clock::now() + time;
  while (std::chrono::steady_clock::now() < end) {
  }
}

/// Rank 3 of 4 in backward of micro-batch 2, layer 5, step 7, just before a sum of the pair {2 3}.
void get_into(std::string_view trouble, Communicator& world, const std::string& dir) {
  double value = 0;
  const View one{&value, hadal::DType::kF64, hadal::Shape{1}, hadal::kCpu};
  if (trouble == "stop" && world.rank() == 3) {
    std::ofstream(dir + "/pid") << getpid() << std::endl;
    raise(SIGSTOP);
  }
  if (trouble == "kill" && world.rank() == 3) raise(SIGKILL);
  if (trouble == "kill_root" && world.rank() == 0) raise(SIGKILL);
  if (trouble == "absent" && world.rank() == 3) std::this_thread::sleep_for(std::chrono::hours(1));
  if (trouble == "deadlock" && world.rank() == 3) world.receive(one, 2, 8);
  if (trouble == "throw" && world.rank() == 3) throw hadal::Error(hadal::ExitCode::kNumerics, "rank 3 fails");
  if (trouble == "slow" && world.rank() == 3) compute(std::chrono::milliseconds(3500));
}

int run(std::string_view trouble, const std::string& dir, hadal::train::HangBounds bounds) {
  auto world = hadal::comm::init_from_environment();
  {
    const hadal::train::Watchdog watchdog(*world, dir + "/log", bounds, [&](hadal::ExitCode) { std::ofstream(dir + "/ended") << world->rank(); });
    const int pair = world->rank() / 2 * 2;
    const auto neighbours = world->subgroup(std::vector<int>{pair, pair + 1}, "dp");
    for (int step = 1; step <= 10; ++step) {
      world->ledger()->set_step(step);
      const Position position("backward", 2, 5);
      if (step == 7) get_into(trouble, *world, dir);
      neighbours->all_reduce_sum(1.0);
      world->barrier();
    }
  }
  return hadal::comm::finish(std::move(world), 0);
}

}  // namespace

int main(int, char** argv) {
  try {
    return run(argv[1], argv[2], {.proven_s = std::atof(argv[3]), .silent_s = std::atof(argv[4])});
  } catch (const hadal::Error& error) {
    hadal::comm::abort_all(static_cast<int>(error.code()));
  }
}
