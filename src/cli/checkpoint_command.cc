// hadal checkpoint inspect | verify | diff | reshard
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
#include "checkpoint/reshard.h"
#include "checkpoint/store.h"
#include "cli/byte_progress.h"
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

std::uint64_t bytes_of(const StoredTensor& tensor) {
  return static_cast<std::uint64_t>(tensor.shape.numel()) * size_of(tensor.dtype);
}

std::uint64_t tensor_bytes(const CheckpointReader& reader) {
  std::uint64_t bytes = 0;
  for (const StoredTensor& tensor : reader.tensors()) bytes += bytes_of(tensor);
  return bytes;
}

std::uint64_t file_bytes(const CheckpointReader& reader) {
  std::uint64_t bytes = 0;
  for (const checkpoint::StoredFile& file : reader.files()) bytes += file.bytes;
  return bytes;
}

const std::string& file_name(const CheckpointReader& reader, const checkpoint::Piece& piece) {
  return reader.files()[static_cast<std::size_t>(piece.file)].name;
}

Json to_json(const CheckpointReader& reader, const StoredTensor& tensor) {
  const auto extents = tensor.shape.extents();
  Json pieces = Json::array();
  for (const checkpoint::Piece& piece : tensor.pieces) {
    pieces.push_back({{"file", file_name(reader, piece)},
                      {"offset", piece.offset},
                      {"begin", piece.slice.begin},
                      {"extent", piece.slice.extent}});
  }
  return {{"name", tensor.name},
          {"shape", std::vector<std::int64_t>(extents.begin(), extents.end())},
          {"dtype", name_of(tensor.dtype)},
          {"hash", tensor.hash.hex()},
          {"pieces", std::move(pieces)}};
}

Json to_json(const checkpoint::State& state) {
  Json json = Json::object();
  for (const auto& entry : state.values()) {
    std::visit([&](const auto& known) { json[entry.first] = known; }, entry.second);
  }
  return json;
}

/// One line for each tensor; where it lies follows when that is asked for, or not obvious.
void print_tensors(const CheckpointReader& reader, bool pieces) {
  for (const StoredTensor& tensor : reader.tensors()) {
    const std::size_t count = tensor.pieces.size();
    fmt::print("{}  {:5} {:16} {}{}\n", tensor.hash.hex(), name_of(tensor.dtype), tensor.shape.str(), tensor.name,
               count > 1 ? fmt::format("  ({} pieces)", count) : "");
    for (std::size_t i = 0; pieces && i < count; ++i) {
      const checkpoint::Piece& piece = tensor.pieces[i];
      fmt::print("    {} at {}: {}\n", file_name(reader, piece), piece.offset, piece.slice.str());
    }
  }
}

int inspect(const std::string& ckpt, bool pieces, const OutputFlags& output) {
  const CheckpointReader reader = CheckpointReader::open(locate(ckpt), Check::kManifest);
  const Json state = to_json(reader.state());
  const std::uint64_t bytes = tensor_bytes(reader);
  if (output.json_path != "-") {
    fmt::print("step {}: {} tensors, {} bytes in {} files\n", reader.step(), reader.tensors().size(), bytes,
               reader.files().size());
    for (const auto& [key, value] : state.items()) {
      if (key != checkpoint::kConfigKey) fmt::print("{} = {}\n", key, value.dump());
    }
    for (const checkpoint::StoredFile& file : reader.files())
      fmt::print("{}  {}  {} bytes\n", file.hash.hex(), file.name, file.bytes);
    print_tensors(reader, pieces);
  }
  Json figures{{"path", reader.path().string()}, {"step", reader.step()}, {"bytes", bytes}, {"state", state}};
  Json& files = figures["files"] = Json::array();
  for (const checkpoint::StoredFile& file : reader.files())
    files.push_back({{"name", file.name}, {"bytes", file.bytes}, {"hash", file.hash.hex()}});
  Json& tensors = figures["tensors"] = Json::array();
  for (const StoredTensor& tensor : reader.tensors()) tensors.push_back(to_json(reader, tensor));
  write_figures(output, figures.dump());
  return 0;
}

int verify(const std::string& ckpt, const OutputFlags& output) {
  const std::filesystem::path path = locate(ckpt);
  std::vector<std::string> damage;
  std::size_t tensors = 0;
  try {
    const CheckpointReader reader = CheckpointReader::open(path, Check::kManifest);
    tensors = reader.tensors().size();
    ByteProgress progress("verify", file_bytes(reader) + tensor_bytes(reader), output.quiet);
    damage = reader.damage([&](std::uint64_t bytes) { progress.add(bytes); });
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

/// Largest |a - b| of two float tensors of equal shape, infinite when only one of two elements is a number. Piece by piece:
/// bounded memory.
double largest_difference(const CheckpointReader& a, const CheckpointReader& b, const StoredTensor& in_a,
                          const StoredTensor& in_b) {
  constexpr std::int64_t kAtOnce = 4 << 20;
  const std::int64_t numel = in_a.shape.numel();
  const checkpoint::Slice whole = checkpoint::whole_slice(in_a.shape);
  double largest = 0.0;
  for (std::int64_t begin = 0; begin < numel; begin += kAtOnce) {
    const std::int64_t count = std::min(kAtOnce, numel - begin);
    Tensor x = Tensor::empty(Shape{count}, DType::kF64), y = Tensor::empty(Shape{count}, DType::kF64);
    const checkpoint::SliceRead of_a{&in_a, whole, x, begin}, of_b{&in_b, whole, y, begin};
    a.read_slices({&of_a, 1});
    b.read_slices({&of_b, 1});
    for (std::size_t i = 0; i < x.span<double>().size(); ++i) {
      const double difference = std::abs(x.span<double>()[i] - y.span<double>()[i]);
      const bool both_nan = std::isnan(x.span<double>()[i]) && std::isnan(y.span<double>()[i]);
      largest = std::max(largest, both_nan ? 0.0 : std::isnan(difference) ? INFINITY : difference);
    }
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

struct ReshardFlags {
  std::string out;
  std::int64_t shards = 0;
  std::uint64_t shard_bytes = checkpoint::CheckpointWriter::kShardBytes;
};

int reshard(const std::string& ckpt, const ReshardFlags& flags, const OutputFlags& output) {
  const CheckpointReader reader = CheckpointReader::open(locate(ckpt), Check::kManifest);
  ByteProgress progress("reshard", tensor_bytes(reader), output.quiet);
  checkpoint::ReshardOptions options{.num_shards = std::nullopt,
                                     .shard_bytes = flags.shard_bytes,
                                     .on_bytes = [&](std::uint64_t bytes) { progress.add(bytes); }};
  if (flags.shards != 0) options.num_shards = flags.shards;
  const std::filesystem::path out = checkpoint::reshard(reader, flags.out, options);
  const CheckpointReader written = CheckpointReader::open(out, Check::kManifest);
  if (output.json_path != "-") {
    fmt::print("{}: {} tensors in {} files (before: {}), every hash as it was\n", out.string(), written.tensors().size(),
               written.files().size(), reader.files().size());
  }
  write_figures(output, Json{{"path", out.string()},
                             {"tensors", written.tensors().size()},
                             {"bytes", tensor_bytes(written)},
                             {"files", written.files().size()},
                             {"files_before", reader.files().size()}}
                            .dump());
  return 0;
}

}  // namespace

int checkpoint_command(const std::vector<std::string>& arguments) {
  CLI::App app;
  app.require_subcommand(1);
  std::string first, second;
  bool pieces = false;
  ReshardFlags reshard_flags;
  OutputFlags output;
  CLI::App* inspect_app = app.add_subcommand("inspect", "step, state, files, and every logical tensor with its hash");
  CLI::App* verify_app = app.add_subcommand("verify", "reads every byte; exit 3 when one is not as committed");
  CLI::App* diff_app =
      app.add_subcommand("diff", "tensors of two checkpoints, by their layout-free hashes; exit 3 when one differs");
  CLI::App* reshard_app = app.add_subcommand("reshard", "writes the same tensors into other shard files; every hash stays");
  for (CLI::App* each : {inspect_app, verify_app, diff_app, reshard_app}) {
    each->add_option("CKPT", first, "step directory, checkpoints directory or run directory")->required();
    if (each == diff_app) each->add_option("OTHER", second, "the checkpoint to compare with")->required();
    add_output_flags(*each, output);
  }
  inspect_app->add_flag("--pieces", pieces, "where each tensor lies: file, byte and slice");
  reshard_app
      ->add_option("--out", reshard_flags.out,
                   "checkpoints directory that gets step-N; a step that is there is never overwritten")
      ->required();
  CLI::Option* shards = reshard_app->add_option("--shards", reshard_flags.shards, "number of files, of about equal size")
                            ->check(CLI::PositiveNumber);
  reshard_app
      ->add_option("--shard-bytes", reshard_flags.shard_bytes,
                   "tensor bytes of a file at most, as 128MiB (the default); up to 1GiB")
      ->transform(CLI::AsSizeValue(true))
      ->excludes(shards);
  parse_arguments(app, "checkpoint", arguments);
  if (inspect_app->parsed()) return inspect(first, pieces, output);
  if (reshard_app->parsed()) return reshard(first, reshard_flags, output);
  if (verify_app->parsed()) return verify(first, output);
  return diff(first, second, output);
}

}  // namespace hadal::cli
