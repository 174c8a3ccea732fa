#include "comm/world.h"

#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <utility>

#include "comm/launcher.h"
#include "comm/mpi/mpi_world.h"
#include "comm/single.h"
#include "core/error.h"
#include "core/log.h"

namespace hadal::comm {
namespace {

bool allowed_alone() {
  const char* text = std::getenv("HADAL_ALLOW_SINGLETON");
  return text != nullptr && std::string_view(text) == "1";
}

}  // namespace

std::unique_ptr<Communicator> init_from_environment() {
  const Launcher launcher = detect_launcher();
  if (!launcher.present()) return std::make_unique<SingleCommunicator>();
  // A waiting rank yields its core: with more ranks than cores a barrier takes 8 ms otherwise (spec/cpu.md 3), and with
  // enough cores yielding costs nothing that a training step could notice.
  setenv("OMPI_MCA_mpi_yield_when_idle", "1", 0);
  mpi::start();
  const std::string trap = singleton_trap(launcher, mpi::world_size());
  if (!trap.empty()) {
    if (!allowed_alone()) {
      mpi::end();
      throw UserError("{}", trap);
    }
    log_warning("{}", trap);
  }
  std::unique_ptr<Communicator> world = mpi::make_world();
  set_log_rank(world->rank(), world->size());
  return world;
}

int finish(std::unique_ptr<Communicator> world, int exit_code) {
  const auto code = static_cast<int>(world->all_reduce_max(exit_code));
  const bool speaks = world->is_root();
  std::fflush(nullptr);
  world->barrier();
  world.reset();
  if (mpi::running()) mpi::end();
  return speaks ? code : static_cast<int>(ExitCode::kDone);
}

bool joined_others() { return mpi::running() && mpi::world_size() > 1; }

void abort_all(int exit_code) {
  std::fflush(nullptr);
  if (mpi::running()) mpi::abort(exit_code);
  std::_Exit(exit_code);
}

}  // namespace hadal::comm
