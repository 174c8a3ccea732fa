#include "comm/world.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string_view>
#include <utility>
#include <vector>

#include "comm/launcher.h"
#include "comm/mpi/last_words.h"
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

bool g_started = false;

void start_mpi() {
  g_started = true;
  // A waiting rank yields its core: with more ranks than cores a barrier takes 8 ms otherwise (spec/cpu.md 3), and with
  // enough cores yielding costs nothing that a training step could notice.
  setenv("OMPI_MCA_mpi_yield_when_idle", "1", 0);
  // On a GPU, kernels of different ranks wait for each other. Such a wait must not hold up what the other rank is waiting for, so no
  // kernel is loaded while another runs, and the streams have queues of their own. Both are read when CUDA starts.
  setenv("CUDA_MODULE_LOADING", "EAGER", 0);
  setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 0);
  mpi::start();
  mpi::open_last_words();
}

/// Has a rank below `rank` the same to say?
bool said_below(const std::vector<mpi::LastWord>& words, int rank) {
  const auto own = words.begin() + rank;
  return std::any_of(words.begin(), own, [&](const mpi::LastWord& word) { return word.message == own->message; });
}

}  // namespace

std::unique_ptr<Communicator> init_from_environment() {
  const Launcher launcher = detect_launcher();
  if (!launcher.present()) return std::make_unique<SingleCommunicator>();
  start_mpi();
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

void join_to_fail() {
  const Launcher launcher = detect_launcher();
  if (!g_started && launcher.size.value_or(1) > 1) start_mpi();
}

int fail(std::string_view message, int exit_code) {
  if (!joined_others()) {
    log_error("{}", message);
    if (mpi::running()) mpi::end();
    return exit_code;
  }
  const int rank = mpi::last_words_rank();
  set_log_rank(rank, mpi::world_size());
  // Nobody is below rank 0: it need not wait to hear of others, and its words are out whatever happens next.
  if (rank == 0) log_error("{}", message);
  const mpi::LastWord mine{std::hash<std::string_view>{}(message), exit_code};
  const std::optional<std::vector<mpi::LastWord>> words = mpi::exchange_last_words(mine);
  if (rank != 0 && !(words && said_below(*words, rank))) log_error("{}", message);
  // Once more, so that all have spoken before somebody ends the job.
  if (!words || !mpi::exchange_last_words(mine)) abort_all(exit_code);
  const bool all_refuse = std::all_of(words->begin(), words->end(), [](const mpi::LastWord& word) {
    return word.exit_code == static_cast<int>(ExitCode::kBadInput);
  });
  if (!all_refuse) abort_all(exit_code);
  std::fflush(nullptr);
  mpi::end();
  return rank == 0 ? exit_code : static_cast<int>(ExitCode::kDone);
}

void abort_all(int exit_code) {
  std::fflush(nullptr);
  if (mpi::running()) mpi::abort(exit_code);
  std::_Exit(exit_code);
}

}  // namespace hadal::comm
