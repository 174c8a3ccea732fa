#include "interop/hf_directory.h"

#include <nlohmann/json.hpp>
#include <set>

#include "core/error.h"
#include "core/file.h"
#include "core/strict_json.h"

namespace hadal::interop {
namespace {

constexpr std::uint64_t kMaxIndex = std::uint64_t{256} << 20;
constexpr std::size_t kMaxListed = 50;

/// Problems as indented lines; a long list is cut, with the number left out.
std::string listed(const std::vector<std::string>& problems) {
  std::string text;
  for (std::size_t i = 0; i < problems.size() && i < kMaxListed; ++i) text += "\n  " + problems[i];
  if (problems.size() > kMaxListed) text += fmt::format("\n  ... and {} more", problems.size() - kMaxListed);
  return text;
}

/// A shard's name must stay inside the directory.
bool is_file_name(const std::string& name) { return name.ends_with(".safetensors") && is_tensor_name(name) && name[0] != '.'; }

}  // namespace

HfDirectory HfDirectory::open(const std::filesystem::path& dir) {
  HfDirectory directory(dir);
  const std::filesystem::path single = dir / "model.safetensors";
  const std::filesystem::path index = dir / "model.safetensors.index.json";
  if (std::filesystem::exists(index)) {
    directory.read_index(index);
  } else if (std::filesystem::exists(single)) {
    directory.files_.push_back(SafetensorsReader::open(single));
    for (const SafetensorsInfo& info : directory.files_[0].tensors()) directory.entries_[info.name] = {nullptr, &info};
  } else {
    throw UserError("{}: holds neither model.safetensors nor model.safetensors.index.json", dir.string());
  }
  for (const SafetensorsReader& file : directory.files_) {
    for (const SafetensorsInfo& info : file.tensors()) {
      const auto found = directory.entries_.find(info.name);
      if (found != directory.entries_.end() && found->second.info == &info) found->second.file = &file;
    }
  }
  return directory;
}

void HfDirectory::read_index(const std::filesystem::path& index) {
  const nlohmann::json json = parse_strict_json(read_file(index, kMaxIndex), index.string());
  if (!json.is_object() || !json.contains("weight_map") || !json["weight_map"].is_object()) {
    throw UserError("{}: has no weight_map", index.string());
  }
  std::map<std::string, std::set<std::string>> tensors_of;
  for (const auto& [name, file] : json["weight_map"].items()) {
    if (!file.is_string() || !is_file_name(file.get_ref<const std::string&>())) {
      throw UserError("{}: tensor {} is in no file of this directory", index.string(), name.substr(0, 64));
    }
    tensors_of[file.get<std::string>()].insert(name);
  }
  std::vector<std::string> problems;
  files_.reserve(tensors_of.size());
  for (const auto& [file, names] : tensors_of) {
    files_.push_back(SafetensorsReader::open(path_ / file));
    for (const std::string& name : names) {
      const SafetensorsInfo* info = files_.back().find(name);
      if (info == nullptr) problems.push_back(fmt::format("{} is not in {}", name, file));
      entries_[name] = {nullptr, info};
    }
    for (const SafetensorsInfo& info : files_.back().tensors()) {
      if (!names.contains(info.name)) problems.push_back(fmt::format("{} is in {}, the index does not say so", info.name, file));
    }
  }
  if (!problems.empty()) throw DamagedDataError("{}: does not fit its shards:{}", index.string(), listed(problems));
}

const HfDirectory::Entry* HfDirectory::find(std::string_view name) const {
  const auto found = entries_.find(name);
  return found == entries_.end() ? nullptr : &found->second;
}

std::uint64_t HfDirectory::tensor_bytes() const {
  std::uint64_t bytes = 0;
  for (const auto& [name, entry] : entries_) bytes += entry.info->bytes;
  return bytes;
}

}  // namespace hadal::interop
