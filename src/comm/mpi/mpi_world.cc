#include "comm/mpi/mpi_world.h"

#include <mpi.h>

#include <array>
#include <cstdlib>

#include "comm/mpi/mpi_transport.h"
#include "core/error.h"

namespace hadal::comm::mpi {
namespace {

bool g_running = false;

}  // namespace

void start() {
  HADAL_CHECK(!g_running, "MPI is started once");
  int provided = 0;
  MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided);
  g_running = true;
  HADAL_CHECK(provided >= MPI_THREAD_FUNNELED, "this MPI library allows no threads beside the one that calls it");
}

bool running() { return g_running; }

int world_size() {
  int size = 1;
  if (g_running) MPI_Comm_size(MPI_COMM_WORLD, &size);
  return size;
}

std::unique_ptr<Communicator> make_world() {
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  return std::make_unique<Communicator>(rank, world_group(world_size()), MpiTransport::world());
}

void end() {
  g_running = false;
  MPI_Finalize();
}

void abort(int exit_code) {
  MPI_Abort(MPI_COMM_WORLD, exit_code);
  std::_Exit(exit_code);
}

std::string library_version() {
  std::array<char, MPI_MAX_LIBRARY_VERSION_STRING> text{};
  int length = 0;
  MPI_Get_library_version(text.data(), &length);
  return std::string(text.data(), static_cast<std::size_t>(length));
}

}  // namespace hadal::comm::mpi
