#include "checkpoint/checkpoint_reader.h"

#include <algorithm>
#include <set>

#include "checkpoint/open_files.h"
#include "checkpoint/together.h"
#include "checkpoint/verify.h"
#include "comm/single.h"
#include "core/error.h"

namespace hadal::checkpoint {
namespace {

constexpr std::uint64_t kMaxManifest = std::uint64_t{1} << 30;
constexpr std::uint64_t kMaxCommit = 4096;

std::string read_part(const std::filesystem::path& path, std::uint64_t limit) {
  const File file = open_part(path);
  const std::uint64_t size = file.size();
  if (size > limit) throw DamagedDataError("{}: {} bytes; at most {} are possible", path.string(), size, limit);
  std::string text(size, '\0');
  file.read_at(0, std::as_writable_bytes(std::span(text)));
  return text;
}

std::string read_manifest(const std::filesystem::path& step_dir) {
  const std::filesystem::path manifest_path = step_dir / kManifestName;
  const std::filesystem::path commit_path = step_dir / kCommitName;
  const std::string commit = read_part(commit_path, kMaxCommit);
  std::string text = read_part(manifest_path, kMaxManifest);
  if (commit != commit_text(text)) {
    throw DamagedDataError("{}: does not match {}: one of the two was altered", manifest_path.string(), commit_path.string());
  }
  return text;
}

/// Everything in the directory must be named by the manifest (hidden files of network file systems apart).
void refuse_strangers(const std::filesystem::path& dir, const Manifest& manifest) {
  std::set<std::string> known{std::string(kManifestName), std::string(kCommitName)};
  for (const StoredFile& file : manifest.files) known.insert(file.name);
  for (const auto& entry : std::filesystem::directory_iterator(dir)) {
    const std::string name = entry.path().filename().string();
    if (name[0] != '.' && !known.contains(name)) {
      throw DamagedDataError("{}: is not part of this checkpoint; move it away", entry.path().string());
    }
  }
}

void check_sizes(const std::filesystem::path& dir, const Manifest& manifest) {
  for (const StoredFile& stored : manifest.files) {
    const File file = open_part(dir / stored.name);
    if (file.size() != stored.bytes) {
      throw DamagedDataError("{}: {} bytes, {} were committed", file.path().string(), file.size(), stored.bytes);
    }
  }
}

void throw_damage(const std::vector<std::string>& lines) {
  if (lines.empty()) return;
  throw DamagedDataError("{}{}", lines[0], lines.size() > 1 ? fmt::format(" (and {} more)", lines.size() - 1) : "");
}

}  // namespace

CheckpointReader CheckpointReader::open(const std::filesystem::path& step_dir, Check check) {
  comm::SingleCommunicator alone;
  return open(step_dir, alone, check);
}

CheckpointReader CheckpointReader::open(const std::filesystem::path& step_dir, comm::Communicator& world, Check check) {
  std::string text, path = step_dir.string();
  Manifest manifest;
  together(world, [&] {
    if (!world.is_root()) return;
    text = read_manifest(step_dir);
    manifest = parse_manifest(text, step_dir / kManifestName);
    refuse_strangers(step_dir, manifest);
    check_sizes(step_dir, manifest);
  });
  world.broadcast(path, 0);
  world.broadcast(text, 0);
  if (!world.is_root()) manifest = parse_manifest(text, std::filesystem::path(path) / kManifestName);
  CheckpointReader reader(path, std::move(manifest));
  if (check == Check::kEveryBlock) {
    together(world, [&] { throw_damage(damaged_blocks(reader.path_, reader.manifest_.files, world.rank(), world.size())); });
  }
  return reader;
}

const StoredTensor* CheckpointReader::find(std::string_view name) const {
  const auto found = std::ranges::lower_bound(manifest_.tensors, name, {}, &StoredTensor::name);
  return found == manifest_.tensors.end() || found->name != name ? nullptr : &*found;
}

const StoredTensor& CheckpointReader::at(std::string_view name) const {
  const StoredTensor* tensor = find(name);
  if (tensor == nullptr) throw UserError("{}: holds no tensor {}", path_.string(), name);
  return *tensor;
}

void CheckpointReader::read_into(const StoredTensor& tensor, View into) const {
  if (into.dtype != tensor.dtype || !(into.shape == tensor.shape)) {
    throw UserError("{}: {} is stored as {} {}, {} {} is wanted", path_.string(), tensor.name, name_of(tensor.dtype),
                    tensor.shape.str(), name_of(into.dtype), into.shape.str());
  }
  read_converted(tensor, into);
}

Tensor CheckpointReader::read(const StoredTensor& stored) const {
  Tensor tensor = Tensor::empty(stored.shape, stored.dtype);
  read_into(stored, tensor);
  return tensor;
}

void CheckpointReader::read_converted(const StoredTensor& tensor, View into) const {
  if (!(tensor.shape == into.shape)) {
    throw UserError("{}: {} is {}, {} is wanted", path_.string(), tensor.name, tensor.shape.str(), into.shape.str());
  }
  const SliceRead whole{&tensor, whole_slice(tensor.shape), into, 0};
  read_slices({&whole, 1});
}

std::vector<std::string> CheckpointReader::damage(const OnBytes& on_bytes) const {
  return checkpoint::damage(path_, manifest_, on_bytes);
}

}  // namespace hadal::checkpoint
