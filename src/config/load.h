// A run's configuration from its YAML file, the files it includes and the command line.
//
//   include: [../model/tiny.yaml]     # top level only, paths relative to this file; later files and this one win
//   train: {steps: 500}
//
// Precedence: defaults < includes, in order < the file < overrides, in order. Maps merge, lists are replaced. ${env:NAME} and
// ${env:NAME:-default} in a value stand for a variable of the environment (config/environment.h). Paths among
// the values (run.dir, data.sources, data.tokenizer) stay as written: relative to the working directory.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "config/config.h"
#include "core/hash.h"

namespace hadal {

struct LoadedConfig {
  Config config;
  /// Keys that somebody set -> where: "optim.lr" -> "configs/a.yaml:14:7" or "command line: optim.lr=3". Others are defaults.
  std::map<std::string, std::string> origins;
  /// One sentence per group of keys that were set although nothing reads them under this config; warn with them.
  std::vector<std::string> inert;
};

/// Reads, checks types and ranges, then checks the values against each other (config/validate.h). UserError holds every
/// error found, each with file:line:column, what is allowed and the nearest spelling.
LoadedConfig load_config(const std::filesystem::path& path, const std::vector<std::string>& overrides = {});
/// The same from a text; `name` stands for the path in messages and is where includes start from.
LoadedConfig load_config_text(const std::string& text, const std::string& name, const std::vector<std::string>& overrides = {});

/// Of a text that the program wrote itself (config/write.h) and that has lain in a file since: reaches neither other files nor the
/// environment, whatever it says by now.
Config load_resolved_config(const std::string& text, const std::string& name);

}  // namespace hadal
