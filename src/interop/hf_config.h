// config.json of an HF model directory <-> the model's shape (spec/interop.md 3.5, 3.7, 7.3): deepseek_v3, deepseek_v2 and
// Hadal's own hadal_nsa. Reads what transformers 4.x (rope_theta + rope_scaling) and 5.x (rope_parameters) write.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "config/config.h"
#include "core/dtype.h"

namespace hadal::interop {

/// Ids of the tokens that generation needs; nothing when the model names none.
struct SpecialIds {
  std::optional<std::int64_t> bos, eos, pad;
};

struct HfConfig {
  std::string model_type;
  ModelSection model;
  SpecialIds ids;
  /// Rows and columns of an FP8 scale block, when the weights are FP8.
  std::optional<std::pair<std::int64_t, std::int64_t>> fp8_block;
};

/// Untrusted text of `path`. UserError listing everything that has the wrong type or value, or that Hadal computes differently
/// (biases, tied embeddings, half-split RoPE, other scalings): key, value, what is allowed.
HfConfig parse_hf_config(std::string_view text, const std::filesystem::path& path);

struct HfConfigOptions {
  std::string_view model_type;  ///< "deepseek_v3", "deepseek_v2", "hadal_nsa"
  DType dtype = DType::kBf16;   ///< of the weights
  SpecialIds ids;
};

/// Every key that an engine reads, defaults included. UserError when the shape does not fit the model type.
std::string write_hf_config(const ModelSection& model, const HfConfigOptions& options);
std::string write_generation_config(const SpecialIds& ids);

}  // namespace hadal::interop
