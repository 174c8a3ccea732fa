// A small training run on made-up text: token file, config, and the losses of its steps.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "report/metrics_row.h"

namespace hadal::test {

/// Writes a token file of `documents` documents over ids 2 .. vocab-1 (1 is eos) with some structure to learn: each token mostly
/// follows from the one before. A pure function of the arguments.
void write_token_file(const std::filesystem::path& path, std::int64_t vocab, std::int64_t documents, std::int64_t tokens_per_document);

/// A model with everything on (MLA, NSA, MoE with groups, MTP), a few thousand parameters, f64; `dir` gets tokens.h5 when absent.
/// `extra` is appended to the YAML as overrides "section.key=value".
struct SmallRun {
  std::filesystem::path dir;
  std::vector<std::string> overrides;

  /// Trains on `ranks` ranks (threads of this process) in run directory dir/`name`; returns the rows of metrics.jsonl, the last one
  /// of each step.
  std::vector<report::MetricsRow> train(const std::string& name, int ranks = 1, const std::vector<std::string>& more = {}) const;
  /// The command-line form: the config file (written when absent).
  std::filesystem::path config_path() const;
};

/// Rows of `run_dir`/metrics.jsonl that hold a loss, the last one of each step, by step; a torn last line does not count.
std::vector<report::MetricsRow> read_metrics(const std::filesystem::path& run_dir);
/// The values of one key, a row each.
std::vector<double> column(const std::vector<report::MetricsRow>& rows, const std::string& key);

}  // namespace hadal::test
