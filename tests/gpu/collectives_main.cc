// Started under mpirun on a machine with a GPU (ranks_test.sh): every call on device memory, through the host or by NCCL, against
// the same call on host memory. Ranks that share a device and go by NCCL have different NCCL_HOSTIDs.
//
//   test_gpu_collectives host|nccl
#include <fmt/core.h>

#include <cstdio>
#include <string_view>

#include "comm/world.h"
#include "core/device_backend.h"
#include "core/error.h"
#include "tests/support/device_exchange_checks.h"

namespace {

int run(std::string_view transport) {
  using namespace hadal;
  auto world = comm::init_from_environment();
  if (world->all_reduce_sum(std::int64_t{num_cuda_devices() > 0}) < world->size()) {
    if (world->is_root()) std::puts("SKIPPED: no CUDA device here");
    return comm::finish(std::move(world), 77);
  }
  constexpr Device kDevice{DeviceKind::kCuda, 0};
  const bool nccl = transport == "nccl";
  world->use_device(kDevice, nccl ? comm::DeviceTransportKind::kNccl : comm::DeviceTransportKind::kHost);
  std::string wrong = test::check_device_exchanges(*world, kDevice, !nccl);
  if (!comm::device_transport_failure().empty()) wrong += comm::device_transport_failure();
  if (!wrong.empty()) fmt::print(stderr, "rank {}: {}\n", world->rank(), wrong);
  if (world->is_root()) fmt::print("{} ranks ({})\n", world->size(), world->description());
  return comm::finish(std::move(world), wrong.empty() ? 0 : 1);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc > 1 ? argv[1] : "host");
  } catch (const hadal::Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    hadal::comm::abort_all(static_cast<int>(error.code()));
  }
}
