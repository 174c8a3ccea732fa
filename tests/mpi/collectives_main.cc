// Started under mpirun by ctest: every collective on real ranks, twice (shared memory or messages as the environment says).
// Exit code through comm::finish, as training does. `collectives fail` ends with an abort on rank 1, to see the job end.
#include <fmt/core.h>

#include <cstdio>
#include <string_view>

#include "comm/world.h"
#include "core/error.h"
#include "tests/support/communicator_checks.h"

int main(int argc, char** argv) {
  const std::string_view mode = argc > 1 ? argv[1] : "";
  auto world = hadal::comm::init_from_environment();
  if (mode == "fail") {
    if (world->rank() == 1) hadal::comm::abort_all(static_cast<int>(hadal::ExitCode::kNumerics));
    world->barrier();
  }
  const std::string wrong = hadal::test::check_collectives(*world);
  if (!wrong.empty()) fmt::print(stderr, "rank {}: {}\n", world->rank(), wrong);
  if (world->is_root()) fmt::print("{} ranks ({})\n", world->size(), world->description());
  int code = wrong.empty() ? 0 : 1;
  if (mode == "stop") code = static_cast<int>(hadal::ExitCode::kStoppedEarly);
  return hadal::comm::finish(std::move(world), code);
}
