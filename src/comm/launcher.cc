#include "comm/launcher.h"

#include <fmt/core.h>

#include <charconv>
#include <cstdlib>
#include <cstring>

namespace hadal::comm {
namespace {

constexpr const char* kSlurmSize = "SLURM_STEP_NUM_TASKS";

/// "8", and of Slurm's "8(x2),4" the first node's 8.
std::optional<int> number(const GetVariable& get_variable, const char* name) {
  const char* text = get_variable(name);
  if (text == nullptr) return std::nullopt;
  int value = 0;
  const char* end = text + std::strlen(text);
  const auto [stop, failure] = std::from_chars(text, end, value);
  if (failure != std::errc{} || (stop != end && *stop != '(' && *stop != ',') || value < 0) return std::nullopt;
  return value;
}

}  // namespace

bool Launcher::term_asks() const { return !present() || size == 1 || variable == kSlurmSize; }

Launcher detect_launcher(const GetVariable& get_variable) {
  Launcher launcher;
  const auto take = [&](const char* size_name, const char* rank_name, const char* local_name, int least) {
    const std::optional<int> size = number(get_variable, size_name);
    if (launcher.present() || !size || *size < least) return;
    launcher = {size_name, number(get_variable, rank_name), size, number(get_variable, local_name)};
  };
  take("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE", 1);
  take(kSlurmSize, "SLURM_PROCID", "SLURM_STEP_TASKS_PER_NODE", 2);
  take("PMI_SIZE", "PMI_RANK", "MPI_LOCALNRANKS", 1);
  if (!launcher.present()) {
    if (const std::optional<int> rank = number(get_variable, "PMIX_RANK"))
      launcher = {"PMIX_RANK", rank, std::nullopt, std::nullopt};
  }
  return launcher;
}

Launcher detect_launcher() {
  return detect_launcher([](const char* name) -> const char* { return std::getenv(name); });
}

std::string singleton_trap(const Launcher& launcher, int mpi_size) {
  if (!launcher.size || *launcher.size <= mpi_size) return "";
  return fmt::format(
      "the launcher announced {} ranks ({}), but MPI connected {}: every rank would train alone into the same run directory\n"
      "  the launcher and the MPI library of this program do not speak the same protocol. Try `srun --mpi=pmix`, or the mpirun "
      "that\n"
      "  belongs to the MPI library hadal was built with (`hadal doctor` names it). HADAL_ALLOW_SINGLETON=1 continues anyway",
      *launcher.size, launcher.variable, mpi_size);
}

}  // namespace hadal::comm
