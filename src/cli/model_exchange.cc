#include "cli/model_exchange.h"

#include <algorithm>
#include <map>
#include <optional>
#include <string_view>
#include <utility>

#include "checkpoint/checkpoint_writer.h"
#include "checkpoint/embedded_config.h"
#include "checkpoint/store.h"
#include "config/write.h"
#include "core/error.h"
#include "core/file.h"
#include "core/log.h"
#include "interop/hf_import.h"
#include "model/engine_notes.h"
#include "tokenizer/tokenizer.h"

namespace hadal::cli {
namespace {

namespace fs = std::filesystem;

constexpr const char* kTokenizerFiles[] = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                                           "chat_template.jinja"};
constexpr const char* kIdKeys[] = {"bos_token_id", "eos_token_id", "pad_token_id"};

std::map<std::string, std::string> tokenizer_files(const fs::path& dir) {
  std::map<std::string, std::string> files;
  for (const char* name : kTokenizerFiles) {
    if (fs::exists(dir / name)) files[name] = read_file(dir / name);
  }
  return files;
}

/// The imported model's config: its shape, and the rest at its defaults.
Config imported_config(const interop::HfImport& import, const fs::path& out, bool has_tokenizer) {
  Config config;
  config.model = import.config().model;
  config.run.name = "imported " + import.config().model_type;
  config.data.sequence_length = std::min(config.data.sequence_length, config.model.max_positions);
  if (has_tokenizer) config.data.tokenizer = fs::absolute(out / "tokenizer").string();
  return config;
}

void keep_ids(checkpoint::State& state, const interop::SpecialIds& ids) {
  const std::optional<std::int64_t> values[] = {ids.bos, ids.eos, ids.pad};
  for (std::size_t i = 0; i < 3; ++i) {
    if (values[i]) state.set(kIdKeys[i], *values[i]);
  }
}

interop::SpecialIds kept_ids(const checkpoint::State& state) {
  std::optional<std::int64_t> values[3];
  for (std::size_t i = 0; i < 3; ++i) {
    if (state.has(kIdKeys[i])) values[i] = state.integer(kIdKeys[i]);
  }
  return {values[0], values[1], values[2]};
}

std::optional<std::int64_t> id_or_none(std::int32_t id) { return id < 0 ? std::nullopt : std::optional<std::int64_t>(id); }

void add_tokenizer(const fs::path& dir, interop::ExportRequest& request) {
  const tokenizer::Tokenizer tokenizer = tokenizer::Tokenizer::load(dir);
  if (tokenizer.vocab_size() > request.model.vocab_size) {
    throw UserError("{}: has ids up to {}, the model only rows for {}", dir.string(), tokenizer.vocab_size() - 1,
                    request.model.vocab_size);
  }
  request.extra_files = tokenizer_files(dir);
  request.config.ids = {id_or_none(tokenizer.bos_id()), id_or_none(tokenizer.eos_id()), id_or_none(tokenizer.pad_id())};
}

void tell_engines(const ModelSection& shape) {
  for (const model::EngineNote& note : model::engine_notes(shape)) {
    log_info("{}: {}{}{}", note.engine, note.ok ? "yes" : "no", note.reason.empty() ? "" : ", ", note.reason);
  }
}

}  // namespace

ImportResult import_model(const fs::path& hf_dir, const fs::path& out) {
  const fs::path checkpoints = out / "checkpoints";
  if (!checkpoint::list_checkpoints(checkpoints).empty() || !checkpoint::list_checkpoints(out).empty()) {
    throw UserError("{}: holds checkpoints already; choose another --out", out.string());
  }
  const interop::HfImport import = interop::HfImport::open(hf_dir);
  const std::map<std::string, std::string> files = tokenizer_files(hf_dir);
  const Config config = imported_config(import, out, !files.empty());

  ImportResult result;
  result.notes = import.notes();
  checkpoint::CheckpointWriter writer(checkpoints, 0);
  for (const interop::ImportedTensor& tensor : import.tensors()) {
    Tensor values = import.read(tensor);
    result.bytes += values.bytes();
    ++result.tensors;
    writer.add(tensor.name, std::move(values));
  }
  checkpoint::set_config(writer.state(), config);
  writer.state().set(checkpoint::kWeightsOnlyKey, 1);
  writer.state().set("tokens", 0);
  keep_ids(writer.state(), import.config().ids);
  if (!files.empty()) fs::create_directories(out / "tokenizer");
  for (const auto& [name, contents] : files) write_file_atomically(out / "tokenizer" / name, contents);
  write_file_atomically(out / "config.yaml", to_yaml(config));
  result.step_dir = writer.commit();
  return result;
}

interop::ExportSummary export_model(const checkpoint::CheckpointReader& reader, const ExportFlags& flags) {
  const Config config = checkpoint::config_of(reader);
  const bool nsa = config.model.attention.sparse == SparseKind::kNsa;
  interop::ExportRequest request;
  request.out = flags.out;
  request.model = config.model;
  request.keep_mtp = flags.keep_mtp;
  request.keep_nsa = !flags.drop_nsa;
  request.shard_bytes = flags.shard_bytes;
  const ModelSection shape = interop::exported_shape(config.model, flags.keep_mtp, !flags.drop_nsa);
  request.config = {model::export_model_type(shape), flags.dtype, kept_ids(reader.state())};
  if (request.config.model_type.empty()) {
    throw UserError("{}: no HF model type fits this shape: {}", reader.path().string(), model::engine_notes(shape)[0].reason);
  }
  if (flags.drop_nsa && !nsa) log_warning("--drop-nsa has no effect: the model is not sparse");
  if (flags.drop_nsa && nsa)
    log_warning("sparse branches are dropped: this is another model than the trained one, with full attention");
  const fs::path dir = flags.tokenizer.empty() ? fs::path(config.data.tokenizer) : flags.tokenizer;
  if (!dir.empty() && (fs::exists(dir) || !flags.tokenizer.empty())) {
    add_tokenizer(dir, request);
  } else {
    log_warning("no tokenizer is exported: {}; --tokenizer DIR adds one",
                dir.empty() ? "the config names none" : dir.string() + " does not exist");
  }
  for (const checkpoint::StoredTensor& tensor : reader.tensors()) {
    if (tensor.name.find('/') == std::string::npos) request.available.emplace(tensor.name, tensor.shape);
  }
  request.read = [&](const std::string& name, View into) { reader.read_converted(reader.at(name), into); };
  interop::ExportSummary summary = interop::export_hf(request);
  tell_engines(shape);
  return summary;
}

}  // namespace hadal::cli
