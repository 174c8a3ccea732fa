// hadal import HF_DIR --out CKPT
#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/command_functions.h"
#include "cli/common_flags.h"
#include "cli/model_exchange.h"
#include "core/log.h"

namespace hadal::cli {

int import_command(const std::vector<std::string>& arguments) {
  CLI::App app;
  std::string source, out;
  OutputFlags output;
  app.add_option("HF_DIR", source, "directory with config.json and safetensors files")->required();
  app.add_option("--out", out, "directory for the checkpoint, its config and its tokenizer")->required();
  add_output_flags(app, output);
  parse_arguments(app, "import", arguments);

  const ImportResult result = import_model(source, out);
  for (const std::string& note : result.notes) log_warning("{}", note);
  if (output.json_path != "-") fmt::print("{}: {} tensors, {} bytes\n", result.step_dir.string(), result.tensors, result.bytes);
  const nlohmann::ordered_json figures = {
      {"checkpoint", result.step_dir.string()}, {"tensors", result.tensors}, {"bytes", result.bytes}, {"notes", result.notes}};
  write_figures(output, figures.dump());
  return 0;
}

}  // namespace hadal::cli
