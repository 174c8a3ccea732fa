#include "checkpoint/reshard.h"

#include <algorithm>
#include <vector>

#include "core/error.h"

namespace hadal::checkpoint {
namespace {

constexpr std::uint64_t kSmallestShard = 4096;
constexpr std::uint64_t kLargestShard = std::uint64_t{1} << 30;

struct TensorSlice {
  const StoredTensor* tensor;
  Slice slice;
};
using PlannedShard = std::vector<TensorSlice>;

std::uint64_t bytes_of(const StoredTensor& tensor) {
  return static_cast<std::uint64_t>(tensor.shape.numel()) * size_of(tensor.dtype);
}

std::uint64_t bytes_of(const TensorSlice& part) {
  return static_cast<std::uint64_t>(part.slice.numel()) * size_of(part.tensor->dtype);
}

/// Puts elements into the present shard or begins the next.
class Plan {
 public:
  /// `shard_bytes` is about what a shard will hold: rows that are small beside it are not cut.
  explicit Plan(std::uint64_t shard_bytes) : shard_bytes_(shard_bytes) {}

  /// Elements of `tensor` from `begin` on that fit into `room` bytes.
  std::int64_t fitting(const StoredTensor& tensor, std::int64_t begin, std::uint64_t room) const {
    const std::uint64_t element = size_of(tensor.dtype);
    const std::int64_t left = tensor.shape.numel() - begin;
    if (static_cast<std::uint64_t>(left) * element <= room) return left;
    const auto count = static_cast<std::int64_t>(room / element);
    const std::int64_t row = tensor.shape.numel() / tensor.shape[0];
    const bool small_rows = static_cast<std::uint64_t>(row) * element * 2 <= shard_bytes_;
    return small_rows ? std::max<std::int64_t>(0, (begin + count) / row * row - begin) : count;
  }
  void take(const StoredTensor& tensor, std::int64_t begin, std::int64_t count) {
    const Slice whole = whole_slice(tensor.shape);
    if (tensor.shape.numel() == 0) return shards_.back().push_back({&tensor, whole});
    for (Slice& box : boxes_of_range(whole, begin, begin + count)) shards_.back().push_back({&tensor, std::move(box)});
  }
  void next_shard() { shards_.emplace_back(); }
  std::size_t num_shards() const { return shards_.size(); }
  std::vector<PlannedShard> finish() { return std::move(shards_); }

 private:
  std::uint64_t shard_bytes_;
  std::vector<PlannedShard> shards_{1};
};

/// The stream of all tensors, cut near equal distances.
std::vector<PlannedShard> plan_count(const std::vector<StoredTensor>& tensors, std::uint64_t total, std::uint64_t count) {
  Plan plan(total / count);
  std::uint64_t at = 0;
  for (const StoredTensor& tensor : tensors) {
    if (tensor.shape.numel() == 0) plan.take(tensor, 0, 0);
    for (std::int64_t begin = 0; begin < tensor.shape.numel();) {
      const bool last = plan.num_shards() == count;
      const std::uint64_t end_of_shard = total / count * plan.num_shards() + total % count * plan.num_shards() / count;
      const std::uint64_t room = last ? total : end_of_shard > at ? end_of_shard - at : 0;
      const std::int64_t taken = plan.fitting(tensor, begin, room);
      if (taken > 0) plan.take(tensor, begin, taken);
      begin += taken;
      at += static_cast<std::uint64_t>(taken) * size_of(tensor.dtype);
      if (!last && (begin < tensor.shape.numel() || at >= end_of_shard)) plan.next_shard();
    }
  }
  return plan.finish();
}

/// Shards filled to `limit`; a tensor that fits into one shard is not cut.
std::vector<PlannedShard> plan_limit(const std::vector<StoredTensor>& tensors, std::uint64_t limit) {
  Plan plan(limit);
  std::uint64_t room = limit;
  for (const StoredTensor& tensor : tensors) {
    if (tensor.shape.numel() == 0) plan.take(tensor, 0, 0);
    for (std::int64_t begin = 0; begin < tensor.shape.numel();) {
      const std::int64_t taken = bytes_of(tensor) <= limit && bytes_of(tensor) > room ? 0 : plan.fitting(tensor, begin, room);
      if (taken == 0) {
        plan.next_shard();
        room = limit;
        continue;
      }
      plan.take(tensor, begin, taken);
      begin += taken;
      room -= static_cast<std::uint64_t>(taken) * size_of(tensor.dtype);
    }
  }
  return plan.finish();
}

std::vector<PlannedShard> plan_shards(const CheckpointReader& from, const ReshardOptions& options) {
  if (!options.num_shards) {
    if (options.shard_bytes < kSmallestShard || options.shard_bytes > kLargestShard) {
      throw UserError("shards of {} bytes: a shard has 4 KiB to 1 GiB", options.shard_bytes);
    }
    return plan_limit(from.tensors(), options.shard_bytes);
  }
  std::uint64_t total = 0;
  for (const StoredTensor& tensor : from.tensors()) total += bytes_of(tensor);
  const std::uint64_t fewest = total / (kLargestShard * 2 / 3) + 1, most = std::max<std::uint64_t>(1, total / kSmallestShard);
  if (*options.num_shards < 1 || static_cast<std::uint64_t>(*options.num_shards) < fewest ||
      static_cast<std::uint64_t>(*options.num_shards) > most) {
    throw UserError("{}: {} shards of its {} bytes are not possible; {} to {} are (a shard has 4 KiB to 1 GiB)",
                    from.path().string(), *options.num_shards, total, std::min(fewest, most), most);
  }
  return plan_count(from.tensors(), total, static_cast<std::uint64_t>(*options.num_shards));
}

void copy_shard(const CheckpointReader& from, const PlannedShard& shard, CheckpointWriter& writer, const OnBytes& on_bytes) {
  std::vector<Tensor> values;
  std::vector<SliceRead> reads;
  for (const TensorSlice& part : shard) {
    values.push_back(Tensor::empty(Shape(std::span<const std::int64_t>(part.slice.extent)), part.tensor->dtype));
    reads.push_back({part.tensor, part.slice, values.back(), 0});
  }
  from.read_slices(reads);
  for (std::size_t i = 0; i < shard.size(); ++i) {
    writer.add_slice({shard[i].tensor->name, shard[i].tensor->shape, shard[i].slice}, std::move(values[i]));
  }
  writer.end_shard();
  for (const TensorSlice& part : shard) {
    if (on_bytes) on_bytes(bytes_of(part));
  }
}

}  // namespace

std::filesystem::path reshard(const CheckpointReader& from, const std::filesystem::path& dir, const ReshardOptions& options) {
  const std::vector<PlannedShard> shards = plan_shards(from, options);
  CheckpointWriter writer(dir, from.step(), kLargestShard);
  for (const PlannedShard& shard : shards) copy_shard(from, shard, writer, options.on_bytes);
  writer.state() = from.state();
  const std::filesystem::path step_dir = writer.commit();
  const CheckpointReader to = CheckpointReader::open(step_dir, Check::kManifest);
  for (const StoredTensor& tensor : from.tensors()) {
    HADAL_CHECK(to.at(tensor.name).hash == tensor.hash, "{}: {} has another hash than in {}", step_dir.string(), tensor.name,
                from.path().string());
  }
  return step_dir;
}

}  // namespace hadal::checkpoint
