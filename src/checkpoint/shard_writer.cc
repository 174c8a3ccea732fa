#include "checkpoint/shard_writer.h"

#include <algorithm>
#include <utility>

#include "core/error.h"
#include "core/file.h"
#include "core/parallel_for.h"

namespace hadal::checkpoint {
namespace {

/// "a.weight", and for a part of it "a.weight@0-64,32-48".
std::string dataset_name(const WrittenTensor& tensor, const Slice& slice) {
  if (slice == whole_slice(tensor.shape)) return tensor.name;
  std::string name = tensor.name;
  for (std::size_t d = 0; d < slice.begin.size(); ++d) {
    name += fmt::format("{}{}-{}", d == 0 ? '@' : ',', slice.begin[d], slice.begin[d] + slice.extent[d]);
  }
  return name;
}

void check_inside(const SliceName& name) {
  const auto rank = static_cast<std::size_t>(name.shape.rank());
  bool inside = name.slice.begin.size() == rank && name.slice.extent.size() == rank;
  for (std::size_t d = 0; inside && d < rank; ++d) {
    inside = name.slice.begin[d] >= 0 && name.slice.extent[d] >= 0 &&
             name.slice.begin[d] + name.slice.extent[d] <= name.shape[static_cast<int>(d)];
  }
  HADAL_CHECK(inside, "{} of {} {}", name.slice.str(), name.tensor, name.shape.str());
}

}  // namespace

void write_durably(const std::filesystem::path& path, std::span<const std::span<const std::byte>> spans) {
  std::uint64_t bytes = 0;
  for (const auto& span : spans) bytes += span.size();
  File file = File::create(path);
  file.allocate(bytes);
  for (const auto& span : spans) file.append(span);
  file.sync();
  file.drop_cache();
}

std::size_t ShardWriter::tensor_index(const SliceName& name, DType dtype) {
  const auto [place, is_new] = indices_.emplace(name.tensor, contribution_.tensors.size());
  if (is_new) contribution_.tensors.push_back({name.tensor, dtype, name.shape, std::nullopt, {}});
  const WrittenTensor& tensor = contribution_.tensors[place->second];
  HADAL_CHECK(tensor.dtype == dtype && tensor.shape == name.shape, "{}: {} {} and {} {}", name.tensor, name_of(tensor.dtype),
              tensor.shape.str(), name_of(dtype), name.shape.str());
  return place->second;
}

void ShardWriter::add(const SliceName& name, ConstView data, const std::shared_ptr<const Tensor>& owner) {
  HADAL_CHECK(is_stored_name(name.tensor), "checkpoint tensor name \"{}\"", name.tensor);
  check_inside(name);
  HADAL_CHECK(data.numel() == name.slice.numel(), "{}: {} elements for slice {}", name.tensor, data.numel(), name.slice.str());
  const std::size_t tensor = tensor_index(name, data.dtype);
  if (name.slice == whole_slice(name.shape)) {
    contribution_.tensors[tensor].hash = hash128({static_cast<const std::byte*>(data.data), data.bytes()});
  }
  if (data.empty()) return;
  const ConstView packed = data.reshape(Shape(std::span<const std::int64_t>(name.slice.extent)));
  if (packed.shape.rank() == 0 || packed.bytes() <= shard_bytes_) return add_piece(tensor, name.slice, packed, owner);
  const std::uint64_t row_bytes = packed.bytes() / static_cast<std::uint64_t>(packed.shape[0]);
  const std::int64_t rows = std::max<std::int64_t>(1, static_cast<std::int64_t>(shard_bytes_ / row_bytes));
  for (std::int64_t begin = 0; begin < packed.shape[0]; begin += rows) {
    const std::int64_t end = std::min(packed.shape[0], begin + rows);
    add_piece(tensor, rows_of(name.slice, begin, end), packed.rows(begin, end), owner);
  }
}

void ShardWriter::add_piece(std::size_t tensor, Slice slice, ConstView data, const std::shared_ptr<const Tensor>& owner) {
  if (pending_bytes_ + data.bytes() > shard_bytes_) flush();
  std::string dataset = dataset_name(contribution_.tensors[tensor], slice);
  pending_.push_back({tensor, std::move(slice), {std::move(dataset), data}, owner});
  pending_bytes_ += data.bytes();
}

void ShardWriter::flush() {
  if (pending_.empty()) return;
  std::vector<ShardPiece> pieces;
  for (const Pending& pending : pending_) pieces.push_back(pending.data);
  const ShardImage image = build_shard_image(pieces);
  const auto file = static_cast<std::int64_t>(contribution_.files.size());
  for (std::size_t i = 0; i < pending_.size(); ++i) {
    contribution_.tensors[pending_[i].tensor].pieces.push_back({file, image.offsets[i], std::move(pending_[i].slice)});
  }
  const std::string name = fmt::format("{}-{:05}.h5", prefix_, file);
  StoredFile stored;
  parallel_for(2, [&](std::int64_t task) {
    if (task == 0) write_durably(dir_ / name, image.spans);
    if (task == 1) stored = hash_file(name, image.spans);
  });
  contribution_.files.push_back(std::move(stored));
  drop();
}

void ShardWriter::drop() {
  pending_.clear();
  pending_bytes_ = 0;
}

}  // namespace hadal::checkpoint
