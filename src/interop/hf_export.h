// A model's logical tensors as an HF directory (spec/interop.md 2 and 3), and the audit that an export ends with.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "config/config.h"
#include "core/shape.h"
#include "core/tensor.h"
#include "interop/hf_config.h"

namespace hadal::interop {

struct ExportRequest {
  std::filesystem::path out;  ///< must not exist; appears complete or not at all
  ModelSection model;         ///< of the source
  bool keep_mtp = true;
  bool keep_nsa = true;  ///< false: an MLA model without its sparse branches, kv_b_proj being the selected branch's
  HfConfigOptions config;
  std::uint64_t shard_bytes = 5'000'000'000;

  /// The logical tensors that the source has, and how to read one as the view's dtype (f32 or bf16, a conversion on purpose).
  std::map<std::string, Shape> available;
  std::function<void(const std::string& name, View into)> read;
  /// Other files of the directory: name, contents (tokenizer).
  std::map<std::string, std::string> extra_files;
};

struct ExportSummary {
  std::int64_t tensors = 0;
  std::uint64_t bytes = 0;
  std::vector<std::string> files;     ///< weight files
  std::vector<std::string> problems;  ///< what the audit found; then nothing was put at `out`
};

/// The shape that is written when MTP or NSA are left out.
ModelSection exported_shape(ModelSection model, bool keep_mtp, bool keep_nsa);

/// UserError that lists whole what the source lacks or has too much, or when the shape does not fit the model type.
ExportSummary export_hf(const ExportRequest& request);

/// Reads a directory back: config.json decides what must be there; names both ways, shapes, dtypes, finite values, MTP's copies.
/// One sentence per finding. `dtype` is what the weights should have.
std::vector<std::string> audit_hf(const std::filesystem::path& dir, DType dtype);

}  // namespace hadal::interop
