#include "train/write_plan.h"

#include <system_error>

#include "core/error.h"
#include "core/file.h"
#include "core/log.h"
#include "plan/forecast_json.h"
#include "plan/machines.h"

namespace hadal::train {
namespace {

/// configs/machine/cpu.yaml is one core; a rank's threads each have one.
MachineSection cpu_of(int threads) {
  MachineSection machine = plan::find_machine("cpu");
  machine.peak.f32 *= threads;
  machine.peak.f64 *= threads;
  machine.memory_bandwidth *= threads;
  if (threads > 1) machine.name += fmt::format(" x {}", threads);
  return machine;
}

}  // namespace

void write_plan(const Config& config, int num_ranks, int threads, const std::filesystem::path& run_dir) {
  const std::filesystem::path path = run_dir / "plan.json";
  try {
    const plan::ForecastOptions options{.machine = cpu_of(threads), .threads = threads};
    write_file_atomically(path, plan::forecast_json(plan::forecast(config, num_ranks, options), options) + "\n");
  } catch (const Error& error) {
    log_warning("no forecast to hold this run against: {}", error.what());
    // One of another start would speak of another layout.
    std::error_code ignored;
    std::filesystem::remove(path, ignored);
  }
}

}  // namespace hadal::train
