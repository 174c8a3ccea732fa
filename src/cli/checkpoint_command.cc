// hadal checkpoint inspect | verify | diff
#include <fmt/core.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string>
#include <variant>
#include <vector>

#include "checkpoint/checkpoint_reader.h"
#include "checkpoint/embedded_config.h"
#include "checkpoint/store.h"
#include "cli/command_functions.h"
#include "cli/common_flags.h"
#include "core/error.h"
#include "core/log.h"

namespace hadal::cli {
namespace {

using checkpoint::Check;
using checkpoint::CheckpointReader;
using checkpoint::StoredTensor;
using Json = nlohmann::ordered_json;

std::filesystem::path locate(const std::string& ckpt) {
  std::filesystem::path path = checkpoint::find_checkpoint(ckpt);
  log_info("{}", path.string());
  return path;
}

Json to_json(const StoredTensor& tensor) {
  const auto extents = tensor.shape.extents();
  return {{"name", tensor.name},
          {"shape", std::vector<std::int64_t>(extents.begin(), extents.end())},
          {"dtype", name_of(tensor.dtype)},
          {"hash", tensor.hash.hex()}};
}

Json to_json(const checkpoint::State& state) {
  Json json = Json::object();
  for (const auto& entry : state.values()) {
    std::visit([&](const auto& known) { json[entry.first] = known; }, entry.second);
  }
  return json;
}

int inspect(const std::string& ckpt, const OutputFlags& output) {
  const CheckpointReader reader = CheckpointReader::open(locate(ckpt), Check::kManifest);
  Json tensors = Json::array();
  std::uint64_t bytes = 0;
  for (const StoredTensor& tensor : reader.tensors()) {
    tensors.push_back(to_json(tensor));
    bytes += static_cast<std::uint64_t>(tensor.shape.numel()) * size_of(tensor.dtype);
  }
  const Json state = to_json(reader.state());
  if (output.json_path != "-") {
    fmt::print("step {}: {} tensors, {} bytes in {} files\n", reader.step(), reader.tensors().size(), bytes,
               reader.files().size());
    for (const auto& [key, value] : state.items()) {
      if (key != checkpoint::kConfigKey) fmt::print("{} = {}\n", key, value.dump());
    }
    for (const StoredTensor& tensor : reader.tensors()) {
      fmt::print("{}  {:5} {:16} {}\n", tensor.hash.hex(), name_of(tensor.dtype), tensor.shape.str(), tensor.name);
    }
  }
  write_figures(
      output,
      Json{{"path", reader.path().string()}, {"step", reader.step()}, {"bytes", bytes}, {"state", state}, {"tensors", tensors}}
          .dump());
  return 0;
}

int verify(const std::string& ckpt, const OutputFlags& output) {
  const std::filesystem::path path = locate(ckpt);
  std::vector<std::string> damage;
  std::size_t tensors = 0;
  try {
    const CheckpointReader reader = CheckpointReader::open(path, Check::kManifest);
    tensors = reader.tensors().size();
    damage = reader.damage();
  } catch (const DamagedDataError& error) {
    damage.emplace_back(error.what());
  }
  if (output.json_path != "-") {
    for (const std::string& line : damage) fmt::print("{}\n", line);
    if (damage.empty()) fmt::print("{}: {} tensors, every byte as committed\n", path.string(), tensors);
  }
  write_figures(output, Json{{"ok", damage.empty()}, {"tensors", tensors}, {"damage", damage}}.dump());
  return static_cast<int>(damage.empty() ? ExitCode::kDone : ExitCode::kAnswerIsNo);
}

/// Largest |a - b| of two float tensors of equal shape.
double largest_difference(const CheckpointReader& a, const CheckpointReader& b, const StoredTensor& in_a,
                          const StoredTensor& in_b) {
  Tensor x = Tensor::empty(in_a.shape, DType::kF64), y = Tensor::empty(in_b.shape, DType::kF64);
  a.read_converted(in_a, x);
  b.read_converted(in_b, y);
  double largest = 0.0;
  for (std::size_t i = 0; i < x.span<double>().size(); ++i) {
    largest = std::max(largest, std::abs(x.span<double>()[i] - y.span<double>()[i]));
  }
  return largest;
}

bool is_float(DType dtype) { return dtype == DType::kF64 || dtype == DType::kF32 || dtype == DType::kBf16; }

int diff(const std::string& left, const std::string& right, const OutputFlags& output) {
  const CheckpointReader a = CheckpointReader::open(locate(left), Check::kManifest);
  const CheckpointReader b = CheckpointReader::open(locate(right), Check::kManifest);
  Json findings = Json::array();
  const auto add = [&](const std::string& name, const std::string& what, double largest) {
    findings.push_back({{"name", name}, {"what", what}});
    if (std::isfinite(largest)) findings.back()["max_abs"] = largest;
    if (output.json_path != "-") fmt::print("{}: {}\n", name, what);
  };
  for (const StoredTensor& in_a : a.tensors()) {
    const StoredTensor* in_b = b.find(in_a.name);
    if (in_b == nullptr) {
      add(in_a.name, "only in the first", NAN);
    } else if (!(in_a.shape == in_b->shape) || in_a.dtype != in_b->dtype) {
      add(in_a.name,
          fmt::format("{} {} against {} {}", name_of(in_a.dtype), in_a.shape.str(), name_of(in_b->dtype), in_b->shape.str()),
          NAN);
    } else if (in_a.hash != in_b->hash) {
      const double largest = is_float(in_a.dtype) ? largest_difference(a, b, in_a, *in_b) : NAN;
      add(in_a.name, is_float(in_a.dtype) ? fmt::format("differs by up to {:.3g}", largest) : "differs", largest);
    }
  }
  for (const StoredTensor& in_b : b.tensors()) {
    if (a.find(in_b.name) == nullptr) add(in_b.name, "only in the second", NAN);
  }
  if (findings.empty() && output.json_path != "-") fmt::print("{} tensors, all equal bit for bit\n", a.tensors().size());
  write_figures(output, Json{{"equal", findings.empty()}, {"differences", findings}}.dump());
  return static_cast<int>(findings.empty() ? ExitCode::kDone : ExitCode::kAnswerIsNo);
}

}  // namespace

int checkpoint_command(const std::vector<std::string>& arguments) {
  CLI::App app;
  app.require_subcommand(1);
  std::string first, second;
  OutputFlags output;
  CLI::App* inspect_app = app.add_subcommand("inspect", "step, state, and every logical tensor with its hash");
  CLI::App* verify_app = app.add_subcommand("verify", "reads every byte; exit 3 when one is not as committed");
  CLI::App* diff_app =
      app.add_subcommand("diff", "tensors of two checkpoints, by their layout-free hashes; exit 3 when one differs");
  for (CLI::App* each : {inspect_app, verify_app, diff_app}) {
    each->add_option("CKPT", first, "step directory, checkpoints directory or run directory")->required();
    if (each == diff_app) each->add_option("OTHER", second, "the checkpoint to compare with")->required();
    add_output_flags(*each, output);
  }
  parse_arguments(app, "checkpoint", arguments);
  if (inspect_app->parsed()) return inspect(first, output);
  if (verify_app->parsed()) return verify(first, output);
  return diff(first, second, output);
}

}  // namespace hadal::cli
