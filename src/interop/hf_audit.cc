#include <fmt/core.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <set>

#include "core/file.h"
#include "interop/hf_directory.h"
#include "interop/hf_export.h"
#include "interop/hf_names.h"

namespace hadal::interop {
namespace {

constexpr std::uint64_t kMaxConfig = 16 << 20;

Tensor read_floats(const HfDirectory::Entry& entry) {
  Tensor values = Tensor::empty(entry.info->shape, DType::kF32);
  entry.file->read_as_float(*entry.info, values);
  return values;
}

bool all_finite(const Tensor& values) {
  for (const float value : values.span<float>()) {
    if (!std::isfinite(value)) return false;
  }
  return true;
}

bool same_values(const Tensor& a, const Tensor& b) {
  return a.bytes() == b.bytes() && std::memcmp(a.span<float>().data(), b.span<float>().data(), a.bytes()) == 0;
}

}  // namespace

std::vector<std::string> audit_hf(const std::filesystem::path& dir, DType dtype) {
  const HfConfig config = parse_hf_config(read_file(dir / "config.json", kMaxConfig), dir / "config.json");
  const HfDirectory directory = HfDirectory::open(dir);
  std::vector<std::string> problems;
  std::set<std::string, std::less<>> wanted;
  for (const ExpectedTensor& expected : expected_tensors(config.model)) {
    wanted.insert(expected.name);
    const HfDirectory::Entry* entry = directory.find(expected.name);
    if (entry == nullptr) {
      problems.push_back(fmt::format("missing: {}", expected.name));
      continue;
    }
    const StoredType type = stored_type_of(expected.keep_f32 ? DType::kF32 : dtype);
    if (!(entry->info->shape == expected.shape) || entry->info->type != type) {
      problems.push_back(fmt::format("{} is {} {}, wanted {} {}", expected.name, name_of(entry->info->type),
                                     entry->info->shape.str(), name_of(type), expected.shape.str()));
      continue;
    }
    const Tensor values = read_floats(*entry);
    if (!all_finite(values)) problems.push_back(fmt::format("{} holds values that are not finite", expected.name));
    if (!expected.is_copy()) continue;
    const HfDirectory::Entry* original = directory.find(expected.logical);
    if (original == nullptr || !same_values(values, read_floats(*original))) {
      problems.push_back(fmt::format("{} is no copy of {}", expected.name, expected.logical));
    }
  }
  for (const auto& [name, entry] : directory.entries()) {
    if (!wanted.contains(name)) problems.push_back(fmt::format("extra: {}", name));
  }
  return problems;
}

}  // namespace hadal::interop
