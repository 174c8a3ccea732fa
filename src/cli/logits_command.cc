// hadal logits CKPT --tokens FILE --out FILE: logits of whole sequences, for parity checks.
#include <CLI/CLI.hpp>

#include <cstring>

#include "cli/command_functions.h"
#include "cli/common_flags.h"
#include "cli/model_flags.h"
#include "core/copy.h"
#include "core/log.h"
#include "interop/safetensors.h"

namespace hadal::cli {
namespace {

/// Tensor `tokens` as I32 [B, S], every id below the vocabulary.
Tensor read_tokens(const std::string& path, const ModelSection& shape) {
  const auto file = interop::SafetensorsReader::open(path);
  const Tensor stored = file.read("tokens");
  if (stored.shape().rank() != 2 || (stored.dtype() != DType::kI32 && stored.dtype() != DType::kI64) || stored.numel() == 0) {
    throw UserError("{}: tensor tokens is {} {}; I32 or I64 [B, S] is wanted", path, name_of(stored.dtype()), stored.shape().str());
  }
  if (stored.shape()[1] > shape.max_positions) {
    throw UserError("{}: sequences of {} tokens, but model.max_positions is {}", path, stored.shape()[1], shape.max_positions);
  }
  Tensor tokens = Tensor::empty(stored.shape(), DType::kI32);
  for (std::int64_t i = 0; i < stored.numel(); ++i) {
    const std::int64_t id = stored.dtype() == DType::kI64 ? stored.as<std::int64_t>()[i] : stored.as<std::int32_t>()[i];
    if (id < 0 || id >= shape.vocab_size) throw UserError("{}: token {} is {}, the model has ids 0 .. {}", path, i, id, shape.vocab_size - 1);
    tokens.as<std::int32_t>()[i] = static_cast<std::int32_t>(id);
  }
  return tokens;
}

/// Rows 0 .. S-k-1 of each sequence: where depth k predicts something.
Tensor without_padding(const Tensor& logits, std::int64_t batch, std::int64_t seq, std::int64_t depth) {
  const std::int64_t vocab = logits.shape()[1];
  Tensor cut = Tensor::empty({batch, seq - depth, vocab}, logits.dtype());
  const std::size_t row_bytes = static_cast<std::size_t>(vocab) * size_of(logits.dtype());
  for (std::int64_t b = 0; b < batch; ++b) {
    std::memcpy(static_cast<char*>(cut.view().data) + static_cast<std::size_t>(b * (seq - depth)) * row_bytes,
                static_cast<const char*>(logits.view().data) + static_cast<std::size_t>(b * seq) * row_bytes,
                static_cast<std::size_t>(seq - depth) * row_bytes);
  }
  return cut;
}

}  // namespace

int logits_command(const std::vector<std::string>& arguments) {
  CLI::App app;
  ModelFlags model_flags;
  OutputFlags output;
  std::string tokens_path, out;
  add_model_flags(app, model_flags);
  add_quiet_flag(app, output);
  app.add_option("--tokens", tokens_path, "safetensors file with the tensor tokens, I32 or I64 [B, S]")->required();
  app.add_option("--out", out, "safetensors file to write: logits [B, S, V], mtp_logits.k [B, S-k, V]")->required();
  parse_arguments(app, "logits", arguments);

  train::LoadedModel loaded = load_model(model_flags);
  const Tensor tokens = read_tokens(tokens_path, loaded.config.model);
  const std::int64_t batch = tokens.shape()[0], seq = tokens.shape()[1];
  Stream stream = stream_of(loaded.model->options().device);
  model::Model::Logits logits = loaded.model->logits(stream, tokens);
  logits.main = to_host(stream, logits.main);
  for (Tensor& depth : logits.mtp) depth = to_host(stream, depth);
  std::vector<std::pair<std::string, ConstView>> tensors{
      {"logits", static_cast<ConstView>(logits.main).reshape({batch, seq, loaded.config.model.vocab_size})}};
  std::vector<Tensor> kept;
  kept.reserve(logits.mtp.size());
  for (std::size_t k = 0; k < logits.mtp.size(); ++k) {
    const auto depth = static_cast<std::int64_t>(k) + 1;
    if (depth >= seq) break;
    kept.push_back(without_padding(logits.mtp[k], batch, seq, depth));
    tensors.emplace_back(fmt::format("mtp_logits.{}", depth), kept.back());
  }
  interop::write_safetensors(out, tensors);
  log_info("{}: logits of {} x {} tokens", out, batch, seq);
  return 0;
}

}  // namespace hadal::cli
