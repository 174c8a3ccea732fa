// Models in and out: an HF directory to a checkpoint, a checkpoint to an HF directory. What the import and export commands do.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "checkpoint/checkpoint_reader.h"
#include "core/dtype.h"
#include "interop/hf_export.h"

namespace hadal::cli {

struct ImportResult {
  std::filesystem::path step_dir;
  std::int64_t tensors = 0;
  std::uint64_t bytes = 0;
  std::vector<std::string> notes;
};

/// Writes `out`/checkpoints/step-0 (weights only, config embedded), `out`/config.yaml and, when the directory has one, its
/// tokenizer. `out` must not hold a checkpoint.
ImportResult import_model(const std::filesystem::path& hf_dir, const std::filesystem::path& out);

struct ExportFlags {
  std::filesystem::path out = {};
  DType dtype = DType::kBf16;
  bool keep_mtp = true;
  bool drop_nsa = false;
  std::filesystem::path tokenizer = {};  ///< empty: the config's data.tokenizer, when that exists
  std::uint64_t shard_bytes = 5'000'000'000;
};

/// Notes on what every engine makes of the exported shape go to stderr. The summary's problems are the audit's findings.
interop::ExportSummary export_model(const checkpoint::CheckpointReader& reader, const ExportFlags& flags);

}  // namespace hadal::cli
