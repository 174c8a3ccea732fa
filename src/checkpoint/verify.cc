#include "checkpoint/verify.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "checkpoint/open_files.h"
#include "core/error.h"
#include "core/parallel_for.h"
#include "core/tensor.h"

namespace hadal::checkpoint {
namespace {

std::vector<std::string> joined(std::vector<std::vector<std::string>> parts) {
  std::vector<std::string> all;
  for (std::vector<std::string>& part : parts) std::ranges::move(part, std::back_inserter(all));
  return all;
}

/// Bytes [begin, begin + size) of block `block`.
std::pair<std::uint64_t, std::size_t> range_of(const StoredFile& file, std::size_t block) {
  const std::uint64_t begin = block * kBlockBytes;
  return {begin, static_cast<std::size_t>(std::min(kBlockBytes, file.bytes - begin))};
}

std::vector<std::string> file_damage(const std::filesystem::path& dir, const StoredFile& stored, const OnBytes& on_bytes) {
  std::vector<std::string> lines;
  const File file = open_part(dir / stored.name);
  Tensor buffer = Tensor::empty(Shape{static_cast<std::int64_t>(std::min(kBlockBytes, stored.bytes))}, DType::kU8);
  Hasher hasher;
  for (std::size_t block = 0; block < stored.blocks.size(); ++block) {
    const auto [begin, size] = range_of(stored, block);
    const auto bytes = std::as_writable_bytes(buffer.span<std::uint8_t>().first(size));
    file.read_at(begin, bytes);
    if (hash128(bytes) != stored.blocks[block]) lines.push_back(damaged_block(dir, stored, block));
    hasher.update(bytes);
    if (on_bytes) on_bytes(size);
  }
  if (hasher.digest() != stored.hash) lines.push_back(fmt::format("{}: file hash differs", (dir / stored.name).string()));
  return lines;
}

}  // namespace

std::string damaged_block(const std::filesystem::path& dir, const StoredFile& file, std::size_t block) {
  const auto [begin, size] = range_of(file, block);
  return fmt::format("{}: block {} (bytes {} to {}) is damaged", (dir / file.name).string(), block, begin, begin + size);
}

std::vector<std::string> damaged_blocks(const std::filesystem::path& dir, std::span<const StoredFile> files, int share,
                                        int shares) {
  std::vector<std::pair<const StoredFile*, std::size_t>> blocks;
  for (const StoredFile& file : files) {
    for (std::size_t block = 0; block < file.blocks.size(); ++block) blocks.emplace_back(&file, block);
  }
  const auto count = static_cast<std::int64_t>(blocks.size());
  const std::int64_t first = count * share / shares, last = count * (share + 1) / shares;
  std::vector<std::vector<std::string>> lines(static_cast<std::size_t>(last - first));
  parallel_for(last - first, [&](std::int64_t i) {
    const auto& [stored, block] = blocks[static_cast<std::size_t>(first + i)];
    const auto [begin, size] = range_of(*stored, block);
    Tensor bytes = Tensor::empty(Shape{static_cast<std::int64_t>(size)}, DType::kU8);
    open_part(dir / stored->name).read_at(begin, std::as_writable_bytes(bytes.span<std::uint8_t>()));
    if (hash128(std::as_bytes(bytes.span<std::uint8_t>())) != stored->blocks[block]) {
      lines[static_cast<std::size_t>(i)].push_back(damaged_block(dir, *stored, block));
    }
  });
  return joined(std::move(lines));
}

std::vector<std::string> damage(const std::filesystem::path& dir, const Manifest& manifest, const OnBytes& on_bytes) {
  std::vector<std::vector<std::string>> lines(manifest.files.size() + manifest.tensors.size());
  parallel_for(static_cast<std::int64_t>(lines.size()), [&](std::int64_t i) {
    const auto index = static_cast<std::size_t>(i);
    if (index < manifest.files.size()) {
      lines[index] = file_damage(dir, manifest.files[index], on_bytes);
      return;
    }
    const StoredTensor& tensor = manifest.tensors[index - manifest.files.size()];
    OpenFiles files(dir, manifest.files);
    if (hash_pieces(tensor, files, on_bytes) != tensor.hash)
      lines[index].push_back(fmt::format("{}: tensor {} is damaged", dir.string(), tensor.name));
  });
  return joined(std::move(lines));
}

}  // namespace hadal::checkpoint
