#include "interop/hf_import.h"

#include <algorithm>
#include <optional>
#include <set>
#include <string_view>

#include "core/error.h"
#include "core/file.h"
#include "interop/hf_names.h"

namespace hadal::interop {
namespace {

constexpr std::uint64_t kMaxConfig = 16 << 20;
constexpr std::string_view kScaleSuffix = "_scale_inv";
constexpr std::string_view kExperts = ".mlp.experts.";

bool is_float(StoredType type) {
  return type == StoredType::kF64 || type == StoredType::kF32 || type == StoredType::kBf16 || type == StoredType::kF16 ||
         type == StoredType::kF8E4M3;
}

std::int64_t blocks(std::int64_t extent, std::int64_t block) { return (extent + block - 1) / block; }

/// Where an expert's matrix lies inside the fused tensors [E, 2 Im, H] (gate, then up) and [E, H, Im].
struct FusedPlace {
  std::string name;
  Shape shape;
  std::int64_t first = 0;
};

std::optional<FusedPlace> fused_place(const ExpectedTensor& expected, std::int64_t num_experts) {
  const std::size_t at = expected.name.find(kExperts);
  if (at == std::string::npos) return std::nullopt;
  const std::string rest = expected.name.substr(at + kExperts.size());
  const std::int64_t expert = std::stoll(rest);
  const std::string base = expected.name.substr(0, at + kExperts.size());
  const std::int64_t rows = expected.shape[0], columns = expected.shape[1], size = rows * columns;
  if (rest.ends_with("down_proj.weight")) return FusedPlace{base + "down_proj", Shape{num_experts, rows, columns}, expert * size};
  const std::int64_t half = rest.ends_with("up_proj.weight") ? 1 : 0;
  return FusedPlace{base + "gate_up_proj", Shape{num_experts, 2 * rows, columns}, (2 * expert + half) * size};
}

/// w = fp8 * scale[row / block, column / block].
void apply_scales(View weight, ConstView scales, std::pair<std::int64_t, std::int64_t> block) {
  float* w = weight.as<float>();
  const float* s = scales.as<float>();
  const std::int64_t columns = weight.shape[1];
  for (std::int64_t row = 0; row < weight.shape[0]; ++row) {
    const float* scale_row = s + row / block.first * scales.shape[1];
    for (std::int64_t column = 0; column < columns; ++column) w[row * columns + column] *= scale_row[column / block.second];
  }
}

}  // namespace

HfImport HfImport::open(const std::filesystem::path& dir) {
  const std::filesystem::path config_path = dir / "config.json";
  if (!std::filesystem::exists(config_path))
    throw UserError("{}: holds no config.json; an HF model directory is wanted", dir.string());
  HfConfig config = parse_hf_config(read_file(config_path, kMaxConfig), config_path);
  HfImport import(HfDirectory::open(dir), std::move(config));
  // The list of expected tensors must not outgrow the files: a small config could ask for billions of experts.
  const ModelSection& model = import.config_.model;
  const auto experts =
      static_cast<std::uint64_t>((model.num_layers + model.mtp.depth) * std::max<std::int64_t>(1, model.moe.num_experts));
  if (experts > import.directory_.tensor_bytes()) {
    throw UserError("{}: asks for {} layers of {} experts, more than the files have bytes", config_path.string(),
                    model.num_layers, model.moe.num_experts);
  }
  import.drop_absent_mtp();
  import.match();
  return import;
}

void HfImport::drop_absent_mtp() {
  MtpSection& mtp = config_.model.mtp;
  if (mtp.depth == 0) return;
  for (std::int64_t layer = config_.model.num_layers; layer < config_.model.num_layers + mtp.depth; ++layer) {
    const std::string prefix = fmt::format("model.layers.{}.", layer);
    const auto first = directory_.entries().lower_bound(prefix);
    if (first != directory_.entries().end() && first->first.starts_with(prefix)) return;
  }
  notes_.push_back(fmt::format("num_nextn_predict_layers is {}, but there are no MTP tensors: imported with depth 0", mtp.depth));
  mtp.depth = 0;
}

void HfImport::match() {
  std::vector<std::string> problems;
  std::set<std::string, std::less<>> used;
  const auto misshapen = [&](const std::string& name, const Shape& found, const Shape& wanted) {
    problems.push_back(fmt::format("misshapen: {} is {}, the config asks for {}", name, found.str(), wanted.str()));
  };
  for (const ExpectedTensor& expected : expected_tensors(config_.model)) {
    const HfDirectory::Entry* entry = directory_.find(expected.name);
    if (expected.is_copy()) {
      if (entry == nullptr) continue;
      used.insert(expected.name);
      compare_copy(expected.name, expected.logical, problems);
      continue;
    }
    ImportedTensor tensor;
    tensor.name = expected.logical;
    tensor.shape = expected.shape;
    Shape stored_shape = expected.shape;
    std::string stored_name = expected.name;
    if (entry == nullptr) {
      if (const std::optional<FusedPlace> place = fused_place(expected, config_.model.moe.num_experts)) {
        entry = directory_.find(place->name);
        if (entry != nullptr) {
          stored_name = place->name;
          stored_shape = place->shape;
          tensor.first = place->first;
        }
      }
    }
    if (entry == nullptr) {
      problems.push_back(fmt::format("missing: {} {}", expected.name, expected.shape.str()));
      continue;
    }
    const bool seen = !used.insert(stored_name).second;
    tensor.file = entry->file;
    tensor.info = entry->info;
    tensor.dtype = entry->info->type == StoredType::kF64 ? DType::kF64 : DType::kF32;
    if (!seen && !(entry->info->shape == stored_shape)) misshapen(stored_name, entry->info->shape, stored_shape);
    if (!seen && !is_float(entry->info->type))
      problems.push_back(fmt::format("dtype: {} is {}", stored_name, name_of(entry->info->type)));
    if (entry->info->type == StoredType::kF8E4M3) {
      const std::string scale_name = stored_name + std::string(kScaleSuffix);
      const HfDirectory::Entry* scale = directory_.find(scale_name);
      const auto block = config_.fp8_block.value_or(std::pair<std::int64_t, std::int64_t>{128, 128});
      if (scale == nullptr || tensor.first != 0 || stored_shape.rank() != 2) {
        problems.push_back(fmt::format("missing: {} for an FP8 weight", scale_name));
        continue;
      }
      used.insert(scale_name);
      const Shape scales{blocks(stored_shape[0], block.first), blocks(stored_shape[1], block.second)};
      if (!(scale->info->shape == scales)) misshapen(scale_name, scale->info->shape, scales);
      if (scale->info->type != StoredType::kF32)
        problems.push_back(fmt::format("dtype: {} is {}", scale_name, name_of(scale->info->type)));
      tensor.scale_file = scale->file;
      tensor.scale = scale->info;
    }
    tensors_.push_back(std::move(tensor));
  }
  std::int64_t ignored = 0;
  for (const auto& [name, entry] : directory_.entries()) {
    if (used.contains(name)) continue;
    if (name.ends_with(".rotary_emb.inv_freq")) {
      ++ignored;
    } else {
      problems.push_back(fmt::format("extra: {} {}", name, entry.info->shape.str()));
    }
  }
  if (ignored > 0)
    notes_.push_back(fmt::format("{} rotary_emb.inv_freq buffers are ignored: they follow from the config", ignored));
  if (problems.empty()) return;
  std::string list;
  for (const std::string& problem : problems) list += "\n  " + problem;
  throw UserError("{}: tensors do not fit config.json:{}", directory_.path().string(), list);
}

void HfImport::compare_copy(const std::string& name, const std::string& of, std::vector<std::string>& problems) const {
  const HfDirectory::Entry* copy = directory_.find(name);
  const HfDirectory::Entry* original = directory_.find(of);
  if (original == nullptr) return;
  const bool same_kind = copy->info->type == original->info->type && copy->info->shape == original->info->shape;
  std::vector<std::byte> a(same_kind ? copy->info->bytes : 0), b(a.size());
  if (same_kind) {
    copy->file->read_bytes(*copy->info, a);
    original->file->read_bytes(*original->info, b);
  }
  if (!same_kind || a != b) problems.push_back(fmt::format("not shared: {} differs from {}", name, of));
}

Tensor HfImport::read(const ImportedTensor& tensor) const {
  Tensor values = Tensor::empty(tensor.shape, tensor.dtype);
  tensor.file->read_as_float(*tensor.info, values, tensor.first);
  if (tensor.scale != nullptr) {
    const Tensor scales = tensor.scale_file->read(tensor.scale->name);
    apply_scales(values, scales, config_.fp8_block.value_or(std::pair<std::int64_t, std::int64_t>{128, 128}));
  }
  return values;
}

}  // namespace hadal::interop
