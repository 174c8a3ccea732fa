#include "interop/hf_export.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "core/error.h"
#include "core/file.h"
#include "interop/hadal_nsa_code.h"
#include "interop/hf_names.h"
#include "interop/safetensors.h"

namespace hadal::interop {
namespace {

struct Shard {
  std::vector<const ExpectedTensor*> tensors;
  std::uint64_t bytes = 0;
};

DType dtype_of(const ExpectedTensor& tensor, DType dtype) { return tensor.keep_f32 ? DType::kF32 : dtype; }

std::uint64_t bytes_of(const ExpectedTensor& tensor, DType dtype) {
  return static_cast<std::uint64_t>(tensor.shape.numel()) * size_of(dtype_of(tensor, dtype));
}

/// A layer stays together where it fits into a shard; a tensor is never split.
std::vector<Shard> make_shards(const std::vector<ExpectedTensor>& tensors, DType dtype, std::uint64_t limit) {
  std::vector<Shard> shards(1);
  for (std::size_t begin = 0; begin < tensors.size();) {
    std::size_t end = begin;
    std::uint64_t group = 0;
    while (end < tensors.size() && tensors[end].layer == tensors[begin].layer && (end == begin || tensors[begin].layer >= 0)) {
      group += bytes_of(tensors[end++], dtype);
    }
    if (shards.back().bytes > 0 && shards.back().bytes + group > limit) shards.emplace_back();
    for (; begin < end; ++begin) {
      const std::uint64_t bytes = bytes_of(tensors[begin], dtype);
      if (shards.back().bytes > 0 && shards.back().bytes + bytes > limit) shards.emplace_back();
      shards.back().tensors.push_back(&tensors[begin]);
      shards.back().bytes += bytes;
    }
  }
  return shards;
}

/// The source must hold exactly the tensors of its own shape.
void check_source(const ExportRequest& request) {
  std::string problems;
  std::set<std::string> wanted;
  for (const ExpectedTensor& tensor : expected_tensors(request.model)) {
    wanted.insert(tensor.logical);
    const auto found = request.available.find(tensor.logical);
    if (found == request.available.end()) {
      problems += fmt::format("\n  missing: {} {}", tensor.logical, tensor.shape.str());
    } else if (!(found->second == tensor.shape)) {
      problems +=
          fmt::format("\n  misshapen: {} is {}, the config asks for {}", tensor.logical, found->second.str(), tensor.shape.str());
    }
  }
  for (const auto& [name, shape] : request.available) {
    if (!wanted.contains(name)) problems += fmt::format("\n  extra: {} {}", name, shape.str());
  }
  if (!problems.empty()) throw UserError("the checkpoint's tensors do not fit its config:{}", problems);
}

void write_shard(const ExportRequest& request, const Shard& shard, const std::filesystem::path& path) {
  std::vector<SafetensorsWriter::Spec> specs;
  for (const ExpectedTensor* tensor : shard.tensors)
    specs.push_back({tensor->name, dtype_of(*tensor, request.config.dtype), tensor->shape});
  SafetensorsWriter writer(path, specs);
  for (const ExpectedTensor* tensor : shard.tensors) {
    Tensor values = Tensor::empty(tensor->shape, dtype_of(*tensor, request.config.dtype));
    request.read(tensor->logical, values);
    writer.write(tensor->name, values);
  }
  writer.finish();
}

std::vector<std::string> write_weights(const ExportRequest& request, const std::vector<ExpectedTensor>& tensors,
                                       const std::filesystem::path& dir) {
  const std::vector<Shard> shards = make_shards(tensors, request.config.dtype, request.shard_bytes);
  std::vector<std::string> files;
  nlohmann::json map = nlohmann::json::object();
  std::uint64_t total = 0;
  for (std::size_t i = 0; i < shards.size(); ++i) {
    files.push_back(shards.size() == 1 ? "model.safetensors"
                                       : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size()));
    write_shard(request, shards[i], dir / files.back());
    total += shards[i].bytes;
    for (const ExpectedTensor* tensor : shards[i].tensors) map[tensor->name] = files.back();
  }
  const nlohmann::json index = {{"metadata", {{"total_size", total}}}, {"weight_map", std::move(map)}};
  if (shards.size() > 1) write_file_atomically(dir / "model.safetensors.index.json", index.dump(2) + "\n");
  return files;
}

}  // namespace

ModelSection exported_shape(ModelSection model, bool keep_mtp, bool keep_nsa) {
  if (!keep_mtp) model.mtp.depth = 0;
  if (!keep_nsa) {
    model.attention.sparse = SparseKind::kNone;
    model.attention.dense_layers.clear();
    model.attention.nsa = {};
  }
  return model;
}

ExportSummary export_hf(const ExportRequest& request) {
  const ModelSection shape = exported_shape(request.model, request.keep_mtp, request.keep_nsa);
  const std::string config = write_hf_config(shape, request.config);
  check_source(request);
  if (std::filesystem::exists(request.out)) {
    throw UserError("{}: exists; an export never overwrites. Remove it, or choose another --out", request.out.string());
  }
  const std::filesystem::path temporary = request.out.string() + ".tmp";
  std::filesystem::remove_all(temporary);
  std::filesystem::create_directories(temporary);

  ExportSummary summary;
  const std::vector<ExpectedTensor> tensors = expected_tensors(shape);
  summary.files = write_weights(request, tensors, temporary);
  for (const ExpectedTensor& tensor : tensors) summary.bytes += bytes_of(tensor, request.config.dtype);
  summary.tensors = static_cast<std::int64_t>(tensors.size());
  for (const auto& [name, contents] : request.extra_files) write_file_atomically(temporary / name, contents);
  if (request.config.model_type == "hadal_nsa") {
    for (const auto& [name, contents] : hadal_nsa_code()) write_file_atomically(temporary / name, contents);
  }
  write_file_atomically(temporary / "generation_config.json", write_generation_config(request.config.ids));
  write_file_atomically(temporary / "config.json", config);
  summary.problems = audit_hf(temporary, request.config.dtype);
  if (summary.problems.empty()) {
    std::filesystem::rename(temporary, request.out);
  } else {
    std::filesystem::remove_all(temporary);
  }
  return summary;
}

}  // namespace hadal::interop
