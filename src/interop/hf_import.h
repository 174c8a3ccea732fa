// An HF model directory as logical tensors of a checkpoint (spec/interop.md 3): any sharding, float dtypes widened exactly,
// experts one by one or fused as transformers 5 may save them, FP8 weights dequantised by their block scales.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "core/tensor.h"
#include "interop/hf_config.h"
#include "interop/hf_directory.h"

namespace hadal::interop {

struct ImportedTensor {
  std::string name;
  Shape shape;
  DType dtype = DType::kF32;  ///< f64 where the file has F64, f32 otherwise

  const SafetensorsReader* file = nullptr;
  const SafetensorsInfo* info = nullptr;
  std::int64_t first = 0;  ///< first element inside `info` (fused experts)
  const SafetensorsReader* scale_file = nullptr;
  const SafetensorsInfo* scale = nullptr;  ///< block scales of an FP8 weight
};

class HfImport {
 public:
  /// Checks config.json and every tensor's name, shape and dtype; UserError that lists whole what is missing, extra or misshapen.
  static HfImport open(const std::filesystem::path& dir);

  const HfConfig& config() const { return config_; }
  /// One per logical tensor of the model, in model order.
  const std::vector<ImportedTensor>& tensors() const { return tensors_; }
  Tensor read(const ImportedTensor& tensor) const;
  /// What was decided silently otherwise: MTP left out, buffers ignored.
  const std::vector<std::string>& notes() const { return notes_; }

 private:
  HfImport(HfDirectory directory, HfConfig config) : directory_(std::move(directory)), config_(std::move(config)) {}
  void drop_absent_mtp();
  void match();
  void compare_copy(const std::string& name, const std::string& of, std::vector<std::string>& problems) const;

  HfDirectory directory_;
  HfConfig config_;
  std::vector<ImportedTensor> tensors_;
  std::vector<std::string> notes_;
};

}  // namespace hadal::interop
