#include "train/run_state.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <set>

#include "checkpoint/checkpoint_reader.h"
#include "checkpoint/checkpoint_writer.h"
#include "checkpoint/embedded_config.h"
#include "checkpoint/parameters.h"
#include "checkpoint/store.h"
#include "config/write.h"
#include "core/error.h"
#include "core/log.h"

namespace hadal::train {
namespace {

using checkpoint::ParameterValue;
using optim::StateKind;

/// What the optimizer keeps, under these names: "optim.m/model.norm.weight".
struct StoredState {
  StateKind kind;
  const char* prefix;
};
constexpr StoredState kFirstMoments{StateKind::kFirstMoment, "optim.m/"};
constexpr StoredState kSecondMoments{StateKind::kSecondMoment, "optim.v/"};
constexpr StoredState kAverages{StateKind::kAverage, "ema/"};

/// Runs what only rank 0 does, until the system has refused something: its word is kept, and rank 0 goes on with the collectives.
class RootWork {
 public:
  explicit RootWork(bool is_root) : is_root_(is_root) {}

  template <class Body>
  void run(Body&& body) {
    if (!is_root_ || !failure_.empty()) return;
    try {
      body();
    } catch (const IoError& error) {
      failure_ = error.what();
    } catch (const std::filesystem::filesystem_error& error) {
      failure_ = error.what();
    }
  }

  std::string& failure() { return failure_; }

 private:
  bool is_root_;
  std::string failure_;
};

Tensor stage(const optim::ShardedAdamW& optimizer, StateKind kind, const nn::Parameter& parameter, bool is_root) {
  return is_root ? Tensor::empty(parameter.shape(), optimizer.state_dtype(kind, parameter)) : Tensor{};
}

/// Gives the writer each part of a staged parameter: its memory goes with the shard it lies in.
void add_parts(checkpoint::CheckpointWriter& writer, const nn::Parameter& parameter, Tensor staged, std::string_view prefix) {
  for (const nn::LogicalPart& part : parameter.parts()) {
    Tensor tensor = Tensor::empty(part.shape, staged.dtype());
    const std::int64_t end = part.offset + tensor.numel();
    const ConstView from = staged.view().reshape(Shape{staged.numel()}).rows(part.offset, end);
    std::memcpy(tensor.view().data, from.data, from.bytes());
    writer.add(std::string(prefix) + part.name, std::move(tensor));
  }
}

/// One parameter at a time passes through the memory of rank 0. Collective.
void save_state(RootWork& root, std::optional<checkpoint::CheckpointWriter>& writer, optim::ShardedAdamW& optimizer,
                StoredState state, bool is_root) {
  if (!optimizer.has(state.kind)) return;
  for (const nn::Parameter* parameter : optimizer.parameters()) {
    Tensor staged = stage(optimizer, state.kind, *parameter, is_root);
    optimizer.gather_state(state.kind, *parameter, 0, staged);
    root.run([&] { add_parts(*writer, *parameter, std::move(staged), state.prefix); });
  }
}

/// Rank 0 reads, one parameter at a time. Collective.
void load_state(const checkpoint::CheckpointReader& reader, optim::ShardedAdamW& optimizer, StoredState state, bool is_root) {
  for (nn::Parameter* parameter : optimizer.parameters()) {
    Tensor staged = stage(optimizer, state.kind, *parameter, is_root);
    if (is_root) checkpoint::load_values(reader, {{parameter, staged}}, state.prefix, {.allow_extra = true});
    optimizer.scatter_state(state.kind, *parameter, 0, staged);
  }
}

/// Other moments than the run's are refused, never rounded.
void check_moments(const checkpoint::CheckpointReader& reader, const optim::ShardedAdamW& optimizer) {
  const nn::Parameter& parameter = *optimizer.parameters().front();
  const DType wanted = optimizer.state_dtype(kFirstMoments.kind, parameter);
  const checkpoint::StoredTensor& stored = reader.at(kFirstMoments.prefix + parameter.parts().front().name);
  if (stored.dtype != wanted && (stored.dtype == DType::kBf16 || wanted == DType::kBf16)) {
    throw UserError("{}: its moments are {}, optim.moments asks for {}; a run keeps the optim.moments it was started with",
                    reader.path().string(), name_of(stored.dtype), name_of(wanted));
  }
}

/// A run may start or stop to keep averages when it resumes.
void restore_averages(const checkpoint::CheckpointReader& reader, optim::ShardedAdamW& optimizer, bool is_root) {
  if (!optimizer.has(kAverages.kind)) return;
  if (std::ranges::any_of(reader.tensors(), [](const auto& tensor) { return tensor.name.starts_with(kAverages.prefix); })) {
    load_state(reader, optimizer, kAverages, is_root);
  } else {
    if (is_root) log_info("{}: holds no moving average; it starts from the weights", reader.path().string());
    optimizer.reset_average();
  }
}

/// "model.layers.N..." with N >= num_layers: a tensor of an MTP module.
bool is_mtp_name(std::string_view name, std::int64_t num_layers) {
  constexpr std::string_view kPrefix = "model.layers.";
  if (!name.starts_with(kPrefix)) return false;
  std::int64_t layer = -1;
  std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), layer);
  return layer >= num_layers;
}

/// Whether every stored weight that the model does not want belongs to MTP modules beyond its own.
bool only_mtp_is_extra(const checkpoint::CheckpointReader& reader, model::DistributedModel& model) {
  const ModelSection& shape = model.options().shape;
  std::set<std::string_view> wanted;
  const nn::ParameterList parameters = model.parameters();
  for (const nn::Parameter* parameter : parameters) {
    for (const nn::LogicalPart& part : parameter->parts()) wanted.insert(part.name);
  }
  return std::ranges::all_of(reader.tensors(), [&](const auto& tensor) {
    const bool weight = tensor.name.find('/') == std::string::npos;
    return !weight || wanted.contains(tensor.name) || is_mtp_name(tensor.name, shape.num_layers + shape.mtp.depth);
  });
}

void write_state(checkpoint::State& stored, const Config& config, const RunState& state, std::int64_t optimizer_steps,
                 const data::Sampler& sampler) {
  stored.set("step", state.step);
  stored.set("tokens", state.tokens);
  stored.set("next_sample", state.next_sample);
  stored.set("optimizer_steps", optimizer_steps);
  stored.set("sample_order", sampler.fingerprint().hex());
  stored.set("seed", config.run.seed);
  stored.set("config", to_yaml(config));
  stored.set("config_hash", config_hash(config).hex());
}

}  // namespace

std::string save_run(const Config& config, const RunState& state, model::DistributedModel& model, optim::ShardedAdamW& optimizer,
                     const data::Sampler& sampler, comm::Communicator& world, MetricsWriter* metrics) {
  const std::filesystem::path directory = std::filesystem::path(config.run.dir) / "checkpoints";
  const bool is_root = world.is_root();
  optimizer.wait_values();
  RootWork root(is_root);
  std::optional<checkpoint::CheckpointWriter> writer;
  root.run([&] {
    if (metrics != nullptr) metrics->sync();
    writer.emplace(directory, state.step);
    checkpoint::save_parameters(*writer, model.parameters());
  });
  for (const StoredState& stored : {kFirstMoments, kSecondMoments, kAverages})
    save_state(root, writer, optimizer, stored, is_root);
  root.run([&] {
    write_state(writer->state(), config, state, optimizer.num_steps(), sampler);
    writer->commit();
    checkpoint::keep_newest(directory, config.checkpoint.keep_last);
  });
  writer.reset();
  world.broadcast(root.failure(), 0);
  return root.failure();
}

std::optional<RunState> restore_run(const Config& config, model::DistributedModel& model, optim::ShardedAdamW& optimizer,
                                    const data::Sampler& sampler, comm::Communicator& world) {
  // Rank 0 alone judges the candidates, since judging sets damaged ones aside.
  std::optional<checkpoint::CheckpointReader> reader;
  std::string path;
  if (world.is_root()) {
    reader = checkpoint::open_newest_valid(std::filesystem::path(config.run.dir) / "checkpoints");
    if (reader) path = reader->path().string();
  }
  world.broadcast(path, 0);
  if (path.empty()) return std::nullopt;
  if (!reader) reader = checkpoint::CheckpointReader::open(path, checkpoint::Check::kManifest);
  if (reader->state().has(checkpoint::kWeightsOnlyKey)) {
    throw UserError("{}: holds weights only and cannot be continued; choose another run.dir, with run.init_from={}", path, path);
  }
  sampler.check_fingerprint(reader->state().text("sample_order"));
  checkpoint::load_parameters(*reader, model.parameters());
  check_moments(*reader, optimizer);
  load_state(*reader, optimizer, kFirstMoments, world.is_root());
  load_state(*reader, optimizer, kSecondMoments, world.is_root());
  restore_averages(*reader, optimizer, world.is_root());
  optimizer.set_num_steps(reader->state().integer("optimizer_steps"));
  return RunState{.step = reader->state().integer("step"),
                  .tokens = reader->state().integer("tokens"),
                  .next_sample = reader->state().unsigned_integer("next_sample")};
}

void load_weights(const std::filesystem::path& checkpoint_path, model::DistributedModel& model) {
  const auto reader = checkpoint::CheckpointReader::open(checkpoint::find_checkpoint(checkpoint_path));
  const std::int64_t num_layers = model.options().shape.num_layers;
  nn::ParameterList present, absent;
  for (nn::Parameter* parameter : model.parameters()) {
    const std::string& name = parameter->parts().front().name;
    (is_mtp_name(name, num_layers) && reader.find(name) == nullptr ? absent : present).push_back(parameter);
  }
  if (!absent.empty()) log_warning("{}: has no tensors of {} MTP parameters; they keep their initial values", reader.path().string(), absent.size());
  checkpoint::load_parameters(reader, present, "", {.convert_dtype = true, .allow_extra = only_mtp_is_extra(reader, model)});
}

}  // namespace hadal::train
