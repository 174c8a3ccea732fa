#include "train/run_device.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <string>

#include "core/device_backend.h"
#include "core/error.h"
#include "kernels/cuda_devices.h"
#include "kernels/determinism.h"

namespace hadal::train {
namespace {

std::string host_name() {
  std::array<char, 256> name{};
  ::gethostname(name.data(), name.size() - 1);
  return name.data();
}

/// Why there is no device, and what to do about it.
std::string no_device() {
  const kernels::CudaStatus status = kernels::cuda_status();
  if (!status.built) {
    return "this build has the CPU alone; for a build with the CUDA backend: nvcc, cuBLAS and NCCL, then configure with HADAL_CUDA=ON";
  }
  if (!status.problem.empty()) return status.problem + "; `hadal doctor` shows what the CUDA runtime sees";
  return "no CUDA device is visible; is CUDA_VISIBLE_DEVICES set? `hadal doctor` shows what the CUDA runtime sees";
}

comm::DeviceTransportKind transport_kind(DeviceTransportChoice choice) {
  switch (choice) {
    case DeviceTransportChoice::kNccl:
      return comm::DeviceTransportKind::kNccl;
    case DeviceTransportChoice::kHost:
      return comm::DeviceTransportKind::kHost;
    default:
      return comm::DeviceTransportKind::kAutomatic;
  }
}

}  // namespace

Device run_device(const Config& config, comm::Communicator& world) {
  kernels::allow_nondeterministic(!config.run.deterministic);
  if (config.run.device == DeviceChoice::kHost) return kCpu;
  if (config.run.cuda_graph && world.size() > 1) {
    throw UserError("run.cuda_graph records the step of one rank, and the job has {}: ranks wait for each other on the host; set run.cuda_graph=false",
                    world.size());
  }
  const std::vector<std::string> hosts = world.all_gather(host_name());
  const int devices = num_cuda_devices();
  if (devices == 0) throw UserError("run.device is cuda, but {}; run.device=cpu trains on the CPU", no_device());
  const auto own = hosts.begin() + world.rank();
  const Device device{DeviceKind::kCuda, static_cast<int>(std::count(hosts.begin(), own, *own)) % devices};
  world.use_device(device, transport_kind(config.parallel.device_transport));
  return device;
}

}  // namespace hadal::train
