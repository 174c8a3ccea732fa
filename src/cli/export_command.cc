// hadal export CKPT --format hf --out DIR
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "checkpoint/store.h"
#include "cli/command_functions.h"
#include "cli/common_flags.h"
#include "cli/model_exchange.h"
#include "core/error.h"
#include "core/log.h"

namespace hadal::cli {

int export_command(const std::vector<std::string>& arguments) {
  CLI::App app;
  std::string source, format = "hf", tokenizer, out;
  ExportFlags flags;
  bool no_mtp = false;
  OutputFlags output;
  app.add_option("CKPT", source, "step directory, checkpoints directory or run directory")->required();
  app.add_option("--format", format, "hf: safetensors and config.json")->check(CLI::IsMember({"hf"}))->capture_default_str();
  app.add_option("--dtype", flags.dtype, "of the weights: bf16 or f32 (the balancing bias is always f32)")
      ->transform(CLI::CheckedTransformer(std::map<std::string, DType>{{"bf16", DType::kBf16}, {"f32", DType::kF32}}))
      ->default_str("bf16");
  app.add_flag("--no-mtp", no_mtp, "leave the multi-token prediction modules out");
  app.add_flag("--drop-nsa", flags.drop_nsa, "export a sparse MLA model as deepseek_v3, with full attention");
  app.add_option("--tokenizer", tokenizer, "tokenizer directory, instead of the config's")->type_name("DIR");
  app.add_option("--out", out, "directory to make")->required()->type_name("DIR");
  add_output_flags(app, output);
  parse_arguments(app, "export", arguments);
  flags.keep_mtp = !no_mtp;
  flags.tokenizer = tokenizer;
  flags.out = out;

  const std::filesystem::path step_dir = checkpoint::find_checkpoint(source);
  log_info("exporting {}", step_dir.string());
  const interop::ExportSummary summary = export_model(checkpoint::CheckpointReader::open(step_dir), flags);
  const bool passed = summary.problems.empty();
  for (const std::string& problem : summary.problems) log_error("audit: {}", problem);
  if (passed && output.json_path != "-") {
    fmt::print("{}: {} tensors, {} bytes in {} file{}; audit passed\n", out, summary.tensors, summary.bytes, summary.files.size(),
               summary.files.size() == 1 ? "" : "s");
  }
  const nlohmann::ordered_json figures = {
      {"tensors", summary.tensors}, {"bytes", summary.bytes}, {"files", summary.files}, {"audit", summary.problems}};
  write_figures(output, figures.dump());
  return static_cast<int>(passed ? ExitCode::kDone : ExitCode::kAnswerIsNo);
}

}  // namespace hadal::cli
