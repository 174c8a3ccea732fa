// Saving and loading of 512 MiB of parameters by one rank, hashes and read-back on, against plain writes and reads of as many
// bytes to the same disk (of_raw; spec/reliability.md 3 asks for 0.8).
#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <memory>
#include <vector>

#include "bench.h"
#include "checkpoint/checkpoint_reader.h"
#include "checkpoint/checkpoint_writer.h"
#include "checkpoint/parameters.h"
#include "core/file.h"
#include "tests/support/temp_dir.h"

namespace hadal::bench {
namespace {

constexpr std::int64_t kTensors = 16, kRows = 4096, kColumns = 2048;
constexpr double kBytes = static_cast<double>(kTensors * kRows * kColumns * 4);

double clock_now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

struct Parameters {
  Parameters() {
    for (std::int64_t i = 0; i < kTensors; ++i) {
      owned.push_back(std::make_unique<nn::Parameter>(fmt::format("layers.{}.weight", i), Shape{kRows, kColumns}, DType::kF32,
                                                      nn::ParameterOptions{}));
      list.push_back(owned.back().get());
      const auto values = owned.back()->value().span<float>();
      for (std::size_t k = 0; k < values.size(); ++k) values[k] = static_cast<float>(k % 8191) + static_cast<float>(i);
    }
  }
  std::vector<std::unique_ptr<nn::Parameter>> owned;
  nn::ParameterList list;
};

double write_plainly(const Parameters& parameters, const std::filesystem::path& path) {
  const double start = clock_now();
  File file = File::create(path);
  file.allocate(static_cast<std::uint64_t>(kBytes));
  for (nn::Parameter* parameter : parameters.list) {
    const ConstView value = parameter->value();
    file.append({static_cast<const std::byte*>(value.data), value.bytes()});
  }
  file.sync();
  return clock_now() - start;
}

double read_plainly(const Parameters& parameters, const std::filesystem::path& path) {
  const double start = clock_now();
  const File file = File::open_read(path);
  std::uint64_t offset = 0;
  for (nn::Parameter* parameter : parameters.list) {
    const View value = parameter->value();
    file.read_at(offset, {static_cast<std::byte*>(value.data), value.bytes()});
    offset += value.bytes();
  }
  return clock_now() - start;
}

/// Times `body` and `raw` in turn.
template <class Body, class Raw>
void against_raw(benchmark::State& state, const Body& body, const Raw& raw) {
  double best = 1e30, best_raw = 1e30;
  for (auto unused : state) {
    (void)unused;
    best_raw = std::min(best_raw, raw());
    const double start = clock_now();
    body();
    const double seconds = clock_now() - start;
    state.SetIterationTime(seconds);
    best = std::min(best, seconds);
  }
  state.counters["GB/s"] = kBytes / best / 1e9;
  state.counters["of_raw"] = best_raw / best;
}

void save(benchmark::State& state) {
  const test::TempDir dir;
  const Parameters parameters;
  std::int64_t step = 0;
  against_raw(
      state,
      [&] {
        checkpoint::CheckpointWriter writer(dir.path(), ++step);
        checkpoint::save_parameters(writer, parameters.list);
        writer.commit();
      },
      [&] {
        std::filesystem::remove_all(dir / fmt::format("step-{}", step));
        std::filesystem::remove(dir / "raw");
        return write_plainly(parameters, dir / "raw");
      });
}

void load(benchmark::State& state) {
  const test::TempDir dir;
  const Parameters parameters;
  checkpoint::CheckpointWriter writer(dir.path(), 1);
  checkpoint::save_parameters(writer, parameters.list);
  const std::filesystem::path step = writer.commit();
  write_plainly(parameters, dir / "raw");
  against_raw(
      state,
      [&] {
        checkpoint::load_parameters(checkpoint::CheckpointReader::open(step, checkpoint::Check::kManifest), parameters.list);
      },
      [&] { return read_plainly(parameters, dir / "raw"); });
}

void resume(benchmark::State& state) {
  const test::TempDir dir;
  const Parameters parameters;
  checkpoint::CheckpointWriter writer(dir.path(), 1);
  checkpoint::save_parameters(writer, parameters.list);
  const std::filesystem::path step = writer.commit();
  write_plainly(parameters, dir / "raw");
  against_raw(
      state, [&] { checkpoint::load_parameters(checkpoint::CheckpointReader::open(step), parameters.list); },
      [&] { return read_plainly(parameters, dir / "raw"); });
}

const bool registered = [] {
  const auto add = [](const char* name, void (*body)(benchmark::State&)) {
    benchmark::RegisterBenchmark(name, body)->UseManualTime()->Iterations(5)->Unit(benchmark::kMillisecond);
  };
  add("checkpoint/save/512MiB", save);
  add("checkpoint/load/512MiB", load);
  add("checkpoint/verify_then_load/512MiB", resume);
  return true;
}();

}  // namespace
}  // namespace hadal::bench
