// Started under mpirun by ctest: every collective on real ranks (shared memory or messages as the environment says). The exit
// code goes through comm::finish, as in training. `stop` ends with 75; `throw` lets an exception of rank 1 end the job; `long` moves
// messages that are cut.
#include <fmt/core.h>

#include <cstdio>
#include <string_view>

#include "comm/world.h"
#include "core/error.h"
#include "tests/support/communicator_checks.h"
#include "tests/support/exchange_checks.h"

namespace {

int run(std::string_view mode) {
  auto world = hadal::comm::init_from_environment();
  if (mode == "throw") {
    world->barrier();
    if (world->rank() == 1) throw hadal::Error(hadal::ExitCode::kNumerics, "rank 1 fails");
    world->barrier();
  }
  const std::string wrong = mode == "long" ? hadal::test::check_long_message(*world, (std::int64_t{150} << 20) + 13)
                                           : hadal::test::check_collectives(*world);
  if (!wrong.empty()) fmt::print(stderr, "rank {}: {}\n", world->rank(), wrong);
  if (world->is_root()) fmt::print("{} ranks ({})\n", world->size(), world->description());
  int code = wrong.empty() ? 0 : 1;
  if (mode == "stop") code = static_cast<int>(hadal::ExitCode::kStoppedEarly);
  return hadal::comm::finish(std::move(world), code);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc > 1 ? argv[1] : "");
  } catch (const hadal::Error& error) {
    hadal::comm::abort_all(static_cast<int>(error.code()));
  }
}
