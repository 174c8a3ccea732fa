#include "checkpoint/checkpoint_writer.h"

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "core/file.h"

namespace hadal::checkpoint {
namespace {

std::span<const std::byte> bytes_of(ConstView view) { return {static_cast<const std::byte*>(view.data), view.bytes()}; }

std::filesystem::path step_dir(const std::filesystem::path& dir, std::int64_t step) { return dir / fmt::format("step-{}", step); }

}  // namespace

CheckpointWriter::CheckpointWriter(const std::filesystem::path& dir, std::int64_t step, std::uint64_t shard_bytes)
    : dir_(dir), temporary_(step_dir(dir, step).string() + ".tmp"), shard_bytes_(shard_bytes) {
  HADAL_CHECK(step >= 0, "step {}", step);
  HADAL_CHECK(shard_bytes > 0 && shard_bytes <= std::uint64_t{1} << 30, "shards of {} bytes", shard_bytes);
  if (std::filesystem::exists(step_dir(dir, step))) {
    throw UserError("{}: exists; a committed checkpoint is never overwritten. Choose another directory, or move it away",
                    step_dir(dir, step).string());
  }
  manifest_.step = step;
  std::filesystem::create_directories(dir_);
  std::filesystem::remove_all(temporary_);
  std::filesystem::create_directory(temporary_);
}

CheckpointWriter::~CheckpointWriter() {
  if (committed_) return;
  std::error_code ignored;
  std::filesystem::remove_all(temporary_, ignored);
}

void CheckpointWriter::add(const std::string& name, ConstView tensor) { add_whole(name, tensor, nullptr); }

void CheckpointWriter::add(const std::string& name, Tensor&& tensor) {
  const auto owner = std::make_shared<const Tensor>(std::move(tensor));
  add_whole(name, owner->view(), owner);
}

void CheckpointWriter::add_whole(const std::string& name, ConstView tensor, const std::shared_ptr<const Tensor>& owner) {
  HADAL_CHECK(is_stored_name(name), "checkpoint tensor name \"{}\"", name);
  HADAL_CHECK(names_.insert(name).second, "{} is added twice", name);
  manifest_.tensors.push_back({name, tensor.dtype, tensor.shape, hash128(bytes_of(tensor)), {}});
  const std::size_t index = manifest_.tensors.size() - 1;
  if (tensor.empty()) return;
  if (tensor.shape.rank() == 0 || tensor.bytes() <= shard_bytes_)
    return add_piece(index, 0, tensor.shape.rank() == 0 ? 1 : tensor.shape[0], tensor, owner);
  const std::uint64_t row_bytes = tensor.bytes() / static_cast<std::uint64_t>(tensor.shape[0]);
  const std::int64_t rows = std::max<std::int64_t>(1, static_cast<std::int64_t>(shard_bytes_ / row_bytes));
  for (std::int64_t begin = 0; begin < tensor.shape[0]; begin += rows) {
    const std::int64_t end = std::min(tensor.shape[0], begin + rows);
    add_piece(index, begin, end, tensor.rows(begin, end), owner);
  }
}

void CheckpointWriter::add_piece(std::size_t tensor, std::int64_t begin, std::int64_t end, ConstView data,
                                 const std::shared_ptr<const Tensor>& owner) {
  if (pending_bytes_ + data.bytes() > shard_bytes_) flush();
  Piece piece;
  for (int dim = 0; dim < data.shape.rank(); ++dim) {
    piece.begin.push_back(dim == 0 ? begin : 0);
    piece.extent.push_back(dim == 0 ? end - begin : data.shape[dim]);
  }
  const StoredTensor& whole = manifest_.tensors[tensor];
  const bool cut = data.numel() != whole.shape.numel();
  pending_.push_back(
      {tensor, std::move(piece), {cut ? fmt::format("{}@{}-{}", whole.name, begin, end) : whole.name, data}, owner});
  pending_bytes_ += data.bytes();
}

void CheckpointWriter::write_durably(const std::string& name, std::span<const std::byte> bytes) const {
  File file = File::create(temporary_ / name);
  file.allocate(bytes.size());
  file.write_at(0, bytes);
  file.sync();
  file.drop_cache();
}

void CheckpointWriter::flush() {
  if (pending_.empty()) return;
  std::vector<ShardPiece> pieces;
  for (const Pending& pending : pending_) pieces.push_back(pending.data);
  const ShardImage image = build_shard_image(pieces);
  const std::string name = fmt::format("shard-{:05}.h5", manifest_.files.size());
  for (std::size_t i = 0; i < pending_.size(); ++i) {
    pending_[i].piece.file = static_cast<std::int64_t>(manifest_.files.size());
    pending_[i].piece.offset = image.offsets[i];
    manifest_.tensors[pending_[i].tensor].pieces.push_back(std::move(pending_[i].piece));
  }
  manifest_.files.push_back(hash_file(name, image.bytes));
  write_durably(name, image.bytes);
  pending_.clear();
  pending_bytes_ = 0;
}

void CheckpointWriter::read_back() const {
  std::vector<std::byte> block(kBlockBytes);
  for (const StoredFile& stored : manifest_.files) {
    const File file = File::open_read(temporary_ / stored.name);
    for (std::size_t i = 0; i < stored.blocks.size(); ++i) {
      const std::uint64_t begin = i * kBlockBytes;
      const auto part = std::span(block).first(std::min<std::uint64_t>(kBlockBytes, stored.bytes - begin));
      file.read_at(begin, part);
      if (hash128(part) != stored.blocks[i]) {
        throw IoError("{}: block {} reads back differently from what was written; the disk or its memory is faulty",
                      file.path().string(), i);
      }
    }
  }
}

std::filesystem::path CheckpointWriter::commit() {
  HADAL_CHECK(!committed_, "step {} is committed already", manifest_.step);
  flush();
  sync_directory(temporary_);
  read_back();
  std::ranges::sort(manifest_.tensors, {}, &StoredTensor::name);
  const std::string text = to_json(manifest_);
  write_durably(std::string(kManifestName), std::as_bytes(std::span(text)));
  const std::string commit = commit_text(text);
  write_durably(std::string(kCommitName), std::as_bytes(std::span(commit)));
  sync_directory(temporary_);
  const std::filesystem::path final_dir = step_dir(dir_, manifest_.step);
  std::error_code error;
  std::filesystem::rename(temporary_, final_dir, error);
  if (error) throw IoError("{}: rename to {} failed: {}", temporary_.string(), final_dir.string(), error.message());
  committed_ = true;
  sync_directory(dir_);
  return final_dir;
}

}  // namespace hadal::checkpoint
