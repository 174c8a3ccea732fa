#define PCRE2_CODE_UNIT_WIDTH 8
#include "cli/doctor_checks.h"

#include <fmt/core.h>
#include <hdf5.h>
#include <pcre2.h>
#include <sys/statvfs.h>
#include <sys/sysinfo.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <string_view>

#include "comm/device_transport.h"
#include "comm/launcher.h"
#include "comm/mpi/mpi_world.h"
#include "core/parallel_for.h"
#include "kernels/cpu/simd/simd.h"
#include "kernels/cuda_devices.h"
#include "kernels/peak.h"

namespace hadal::cli {
namespace {

constexpr double kGib = 1024.0 * 1024.0 * 1024.0;

Check kernel_check() {
  using kernels::simd::Isa;
  const Isa isa = kernels::simd::active_isa();
  const char* limit = std::getenv("HADAL_ISA");
  Check check{"cpu kernels", true, "", ""};
  check.found = fmt::format("{}{}, {:.0f} GFLOP/s f32 and {:.0f} f64 on one thread (measured)", kernels::simd::name_of(isa),
                            limit == nullptr ? "" : fmt::format(" (HADAL_ISA={})", limit),
                            kernels::peak_flops(DType::kF32, 1) / 1e9, kernels::peak_flops(DType::kF64, 1) / 1e9);
  if (isa == Isa::kPortable)
    check.fix = "plain loops only: a CPU with AVX2 or AVX-512 is several times faster; is HADAL_ISA set?";
  return check;
}

Check thread_check() {
  const int cores = available_cores(), online = get_nprocs();
  Check check{"threads", true, fmt::format("{} threads; {} of {} cores may be used", num_threads(), cores, online), ""};
  const comm::Launcher launcher = comm::detect_launcher();
  const int local = launcher.local_size.value_or(1);
  if (cores * local < online) {
    check.fix = launcher.present() ? fmt::format(
                                         "the launcher binds each of {} ranks to {} cores: mpirun --bind-to none, or --map-by "
                                         "slot:PE={}",
                                         local, cores, std::max(1, online / local))
                                   : "this process is bound to fewer cores (taskset, cgroup); fine if that is meant";
  }
  return check;
}

/// The CUDA backend is optional: whatever is found, the check is passed.
Check cuda_check() {
  const kernels::CudaStatus status = kernels::cuda_status();
  if (!status.built) {
    return {"cuda", true, "not in this build (CPU only)", "for a build with it: nvcc, cuBLAS, NCCL and cuDNN, then configure with HADAL_CUDA=ON"};
  }
  Check check{"cuda", true, fmt::format("toolkit {}, {} device(s)", status.toolkit, status.devices.size()), ""};
  for (const kernels::CudaDevice& device : status.devices) {
    check.found += fmt::format("; {} (sm_{}{}, {:.0f} GiB)", device.name, device.major, device.minor, static_cast<double>(device.memory_bytes) / kGib);
  }
  if (!status.problem.empty()) check.found += fmt::format(" ({})", status.problem);
  return check;
}

/// What carries device memory between ranks.
Check transport_check() {
  const comm::DeviceTransportBackend* const backend = comm::device_transport_backend();
  if (backend == nullptr) return {"between GPUs", true, "no NCCL in this build: device memory would go through the host", "configure with HADAL_CUDA=ON"};
  return {"between GPUs", true, backend->name(), ""};
}

/// Bytes that this control group may use; infinite when nothing limits it.
double memory_limit() {
  std::ifstream file("/sys/fs/cgroup/memory.max");
  double limit = 0.0;
  return file >> limit ? limit : std::numeric_limits<double>::infinity();
}

Check memory_check() {
  struct sysinfo info {};
  ::sysinfo(&info);
  const double total = std::min(static_cast<double>(info.totalram) * info.mem_unit, memory_limit());
  std::ifstream file("/proc/meminfo");
  double available = 0.0;
  for (std::string key, unit; file >> key >> available;) {
    if (key == "MemAvailable:") break;
    std::getline(file, unit);
  }
  available = std::min(available * 1024.0, total);
  Check check{"memory", available >= 0.5 * kGib, fmt::format("{:.1f} GiB, {:.1f} GiB free", total / kGib, available / kGib), ""};
  if (!check.ok) check.fix = "close other programs; the quickstart wants 0.5 GiB";
  return check;
}

/// Ranks of one host exchange gradients through /dev/shm.
Check shared_memory_check() {
  struct statvfs status {};
  const bool there = ::statvfs("/dev/shm", &status) == 0;
  const double bytes = there ? static_cast<double>(status.f_bavail) * static_cast<double>(status.f_frsize) : 0.0;
  Check check{"shared memory", true, there ? fmt::format("/dev/shm, {:.1f} GiB free", bytes / kGib) : "no /dev/shm", ""};
  if (bytes < 0.125 * kGib) check.fix = "several ranks on this host want 128 MiB there: docker run --shm-size=1g";
  return check;
}

Check hdf5_check() {
  unsigned major = 0, minor = 0, release = 0;
  const bool ok = H5get_libversion(&major, &minor, &release) >= 0;
  Check check{"hdf5", ok, fmt::format("{}.{}.{} (writes token files and checkpoint shards)", major, minor, release), ""};
  if (!ok) check.fix = "apt-get install libhdf5-dev and rebuild";
  return check;
}

std::string pcre2_text(std::uint32_t what) {
  std::array<char, 64> text{};
  return pcre2_config(what, text.data()) < 0 ? "?" : std::string(text.data());
}

Check pcre2_check() {
  std::uint32_t jit = 0;
  pcre2_config(PCRE2_CONFIG_JIT, &jit);
  Check check{"pcre2", true,
              fmt::format("{}, Unicode {}, {} patterns (tokenizer)", pcre2_text(PCRE2_CONFIG_VERSION),
                          pcre2_text(PCRE2_CONFIG_UNICODE_VERSION), jit != 0 ? "compiled" : "interpreted"),
              ""};
  if (jit == 0) check.fix = "this PCRE2 has no JIT: tokenising is several times slower; Debian's libpcre2-8-0 has it";
  return check;
}

bool on_path(std::string_view program) {
  const char* path = std::getenv("PATH");
  std::string_view rest = path == nullptr ? "" : path;
  while (!rest.empty()) {
    const std::string_view folder = rest.substr(0, rest.find(':'));
    if (::access(fmt::format("{}/{}", folder, program).c_str(), X_OK) == 0) return true;
    rest.remove_prefix(std::min(folder.size() + 1, rest.size()));
  }
  return false;
}

Check slurm_check() {
  const char* job = std::getenv("SLURM_JOB_ID");
  const std::string inside = job == nullptr ? "" : fmt::format("; inside job {}", job);
  return {"slurm", true, on_path("sbatch") ? "sbatch found (launch/slurm.sbatch)" + inside : "no sbatch here", ""};
}

Check compression_check() {
  return {"compression", true, fmt::format("zlib {}, zstd {} (text input)", zlibVersion(), ZSTD_versionString()), ""};
}

}  // namespace

std::vector<Check> machine_checks() {
  return {kernel_check(),
          thread_check(),
          memory_check(),
          shared_memory_check(),
          hdf5_check(),
          pcre2_check(),
          compression_check(),
          slurm_check(),
          cuda_check(),
          transport_check()};
}

Check mpi_check(const std::string& trap, const std::string& world) {
  const comm::Launcher launcher = comm::detect_launcher();
  std::string said = "no launcher";
  if (launcher.present()) {
    said = launcher.size ? fmt::format("{}={}", launcher.variable, *launcher.size) : launcher.variable;
  }
  std::string version = comm::mpi::library_version();
  version.resize(std::min(version.find(','), version.size()));
  Check check{"mpi", trap.empty(), fmt::format("{}; {}{}{}", version, said, world.empty() ? "" : "; ", world), trap};
  if (launcher.present()) return check;
  if (!on_path("mpirun")) {
    check.fix = "mpirun is not on the PATH: apt-get install openmpi-bin, to train with several ranks";
  } else if (::geteuid() == 0 && std::getenv("OMPI_ALLOW_RUN_AS_ROOT") == nullptr) {
    check.fix = "as root mpirun wants OMPI_ALLOW_RUN_AS_ROOT=1 and OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1";
  }
  return check;
}

}  // namespace hadal::cli
