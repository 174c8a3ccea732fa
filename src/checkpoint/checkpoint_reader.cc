#include "checkpoint/checkpoint_reader.h"

#include <algorithm>
#include <cstring>
#include <set>

#include "checkpoint/convert.h"
#include "core/error.h"
#include "core/parallel_for.h"

namespace hadal::checkpoint {
namespace {

constexpr std::uint64_t kMaxManifest = std::uint64_t{1} << 30;
constexpr std::uint64_t kMaxCommit = 4096;

/// A file of the checkpoint; its absence is damage, as is a link that leads elsewhere.
File open_part(const std::filesystem::path& path) {
  std::error_code ignored;
  if (std::filesystem::symlink_status(path, ignored).type() != std::filesystem::file_type::regular) {
    throw DamagedDataError("{}: missing, or not a regular file", path.string());
  }
  return File::open_read(path);
}

std::string read_part(const std::filesystem::path& path, std::uint64_t limit) {
  const File file = open_part(path);
  const std::uint64_t size = file.size();
  if (size > limit) throw DamagedDataError("{}: {} bytes; at most {} are possible", path.string(), size, limit);
  std::string text(size, '\0');
  file.read_at(0, std::as_writable_bytes(std::span(text)));
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

/// Copies a packed slice to its place in the whole tensor.
void scatter(const Piece& piece, const Shape& shape, std::size_t element, const std::byte* from, std::byte* to) {
  const int rank = shape.rank();
  const std::size_t run = static_cast<std::size_t>(piece.extent[static_cast<std::size_t>(rank - 1)]) * element;
  std::vector<std::int64_t> index(static_cast<std::size_t>(rank), 0);
  for (std::int64_t row = piece.numel() / piece.extent.back(); row-- > 0; from += run) {
    std::int64_t position = 0;
    for (int dim = 0; dim < rank; ++dim) {
      const auto d = static_cast<std::size_t>(dim);
      position = position * shape[dim] + piece.begin[d] + index[d];
    }
    std::memcpy(to + static_cast<std::size_t>(position) * element, from, run);
    for (int dim = rank - 2; dim >= 0; --dim) {
      const auto d = static_cast<std::size_t>(dim);
      if (++index[d] < piece.extent[d]) break;
      index[d] = 0;
    }
  }
}

/// True when the slice is one run of the whole tensor: full in every dim but the first.
bool is_rows(const Piece& piece, const Shape& shape) {
  for (int dim = 1; dim < shape.rank(); ++dim) {
    if (piece.extent[static_cast<std::size_t>(dim)] != shape[dim]) return false;
  }
  return true;
}

}  // namespace

CheckpointReader CheckpointReader::open(const std::filesystem::path& step_dir, Check check) {
  const std::filesystem::path manifest_path = step_dir / kManifestName;
  const std::filesystem::path commit_path = step_dir / kCommitName;
  const std::string commit = read_part(commit_path, kMaxCommit);
  const std::string text = read_part(manifest_path, kMaxManifest);
  if (commit != commit_text(text)) {
    throw DamagedDataError("{}: does not match {}: one of the two was altered", manifest_path.string(), commit_path.string());
  }
  Manifest manifest = parse_manifest(text, manifest_path);
  refuse_strangers(step_dir, manifest);
  std::vector<File> files;
  for (const StoredFile& stored : manifest.files) {
    files.push_back(open_part(step_dir / stored.name));
    if (files.back().size() != stored.bytes) {
      throw DamagedDataError("{}: {} bytes, {} were committed", files.back().path().string(), files.back().size(), stored.bytes);
    }
  }
  CheckpointReader reader(step_dir, std::move(manifest), std::move(files));
  if (check == Check::kEveryBlock) {
    const std::vector<std::string> damage = reader.damaged_blocks();
    if (!damage.empty())
      throw DamagedDataError("{}{}", damage[0], damage.size() > 1 ? fmt::format(" (and {} more)", damage.size() - 1) : "");
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

void CheckpointReader::read_piece(const StoredTensor& tensor, const Piece& piece, View into) const {
  const File& file = files_[static_cast<std::size_t>(piece.file)];
  auto* data = static_cast<std::byte*>(into.data);
  const std::size_t element = size_of(tensor.dtype);
  const std::size_t bytes = static_cast<std::size_t>(piece.numel()) * element;
  if (is_rows(piece, tensor.shape)) {
    const std::size_t row = tensor.shape.rank() == 0 ? 0 : into.bytes() / static_cast<std::size_t>(tensor.shape[0]);
    const std::size_t start = tensor.shape.rank() == 0 ? 0 : static_cast<std::size_t>(piece.begin[0]) * row;
    file.read_at(piece.offset, {data + start, bytes});
    return;
  }
  std::vector<std::byte> packed(bytes);
  file.read_at(piece.offset, packed);
  scatter(piece, tensor.shape, element, packed.data(), data);
}

void CheckpointReader::read_into(const StoredTensor& tensor, View into) const {
  if (into.dtype != tensor.dtype || !(into.shape == tensor.shape)) {
    throw UserError("{}: {} is stored as {} {}, {} {} is wanted", path_.string(), tensor.name, name_of(tensor.dtype),
                    tensor.shape.str(), name_of(into.dtype), into.shape.str());
  }
  for (const Piece& piece : tensor.pieces) read_piece(tensor, piece, into);
  if (hash128({static_cast<const std::byte*>(into.data), into.bytes()}) != tensor.hash) {
    const std::vector<std::string> blocks = damaged_blocks();
    throw DamagedDataError("{}: tensor {} is not what was committed ({})", path_.string(), tensor.name,
                           blocks.empty() ? "its files are: the tensor hash differs" : blocks[0]);
  }
}

Tensor CheckpointReader::read(const StoredTensor& stored) const {
  Tensor tensor = Tensor::empty(stored.shape, stored.dtype);
  read_into(stored, tensor);
  return tensor;
}

void CheckpointReader::read_converted(const StoredTensor& tensor, View into) const {
  if (tensor.dtype == into.dtype) return read_into(tensor, into);
  if (!(tensor.shape == into.shape)) {
    throw UserError("{}: {} is {}, {} is wanted", path_.string(), tensor.name, tensor.shape.str(), into.shape.str());
  }
  convert_floats(read(tensor), into);
}

std::vector<std::string> CheckpointReader::damaged_blocks() const {
  std::vector<std::pair<std::size_t, std::size_t>> blocks;
  for (std::size_t file = 0; file < files_.size(); ++file) {
    for (std::size_t block = 0; block < manifest_.files[file].blocks.size(); ++block) blocks.emplace_back(file, block);
  }
  std::vector<char> bad(blocks.size(), 0);
  parallel_for(static_cast<std::int64_t>(blocks.size()), [&](std::int64_t i) {
    const auto [file, block] = blocks[static_cast<std::size_t>(i)];
    const StoredFile& stored = manifest_.files[file];
    const std::uint64_t begin = block * kBlockBytes;
    std::vector<std::byte> bytes(std::min(kBlockBytes, stored.bytes - begin));
    files_[file].read_at(begin, bytes);
    bad[static_cast<std::size_t>(i)] = hash128(bytes) != stored.blocks[block];
  });
  std::vector<std::string> lines;
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    if (!bad[i]) continue;
    const std::uint64_t begin = blocks[i].second * kBlockBytes;
    const std::uint64_t end = std::min(begin + kBlockBytes, manifest_.files[blocks[i].first].bytes);
    lines.push_back(fmt::format("{}: block {} (bytes {} to {}) is damaged", files_[blocks[i].first].path().string(),
                                blocks[i].second, begin, end));
  }
  return lines;
}

std::vector<std::string> CheckpointReader::damage() const {
  std::vector<std::string> lines = damaged_blocks();
  for (std::size_t i = 0; i < files_.size(); ++i) {
    Hasher hasher;
    std::vector<std::byte> bytes(kBlockBytes);
    for (std::uint64_t begin = 0; begin < manifest_.files[i].bytes; begin += kBlockBytes) {
      const auto part = std::span(bytes).first(std::min(kBlockBytes, manifest_.files[i].bytes - begin));
      files_[i].read_at(begin, part);
      hasher.update(part);
    }
    if (hasher.digest() != manifest_.files[i].hash)
      lines.push_back(fmt::format("{}: file hash differs", files_[i].path().string()));
  }
  for (const StoredTensor& stored : manifest_.tensors) {
    Tensor tensor = Tensor::empty(stored.shape, stored.dtype);
    const View view = tensor.view();
    for (const Piece& piece : stored.pieces) read_piece(stored, piece, view);
    if (hash128({static_cast<const std::byte*>(view.data), view.bytes()}) != stored.hash) {
      lines.push_back(fmt::format("{}: tensor {} is damaged", path_.string(), stored.name));
    }
  }
  return lines;
}

}  // namespace hadal::checkpoint
