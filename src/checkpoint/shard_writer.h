// The shard files of one rank: slices are collected until a shard is full, laid out as HDF5, and written durably.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/contribution.h"
#include "checkpoint/shard_image.h"
#include "core/tensor.h"

namespace hadal::checkpoint {

/// A file of the spans' bytes, one after the other. Made exclusively; room is reserved first, and the bytes are on the disk when
/// this returns. IoError.
void write_durably(const std::filesystem::path& path, std::span<const std::span<const std::byte>> spans);

/// Where a slice belongs.
struct SliceName {
  std::string tensor;  ///< "lm_head.weight", "optim.m/lm_head.weight"
  Shape shape;         ///< of the logical tensor
  Slice slice;
};

class ShardWriter {
 public:
  /// Files are `dir`/`prefix`-00000.h5 and so on; `shard_bytes` limits a shard's tensor bytes.
  ShardWriter(std::filesystem::path dir, std::string prefix, std::uint64_t shard_bytes)
      : dir_(std::move(dir)), prefix_(std::move(prefix)), shard_bytes_(shard_bytes) {}

  /// `data` holds the packed slice and stays as it is until flush() returned; an `owner` keeps its memory until it is written.
  /// Slices larger than a shard are cut into pieces along dim 0. A slice that is the whole tensor is hashed here, from memory.
  void add(const SliceName& name, ConstView data, const std::shared_ptr<const Tensor>& owner = nullptr);
  /// Writes what is collected.
  void flush();
  /// Forgets what is collected.
  void drop();
  const Contribution& contribution() const { return contribution_; }

 private:
  struct Pending {
    std::size_t tensor;  ///< index into contribution_.tensors
    Slice slice;
    ShardPiece data;
    std::shared_ptr<const Tensor> owner;
  };

  std::size_t tensor_index(const SliceName& name, DType dtype);
  void add_piece(std::size_t tensor, Slice slice, ConstView data, const std::shared_ptr<const Tensor>& owner);

  std::filesystem::path dir_;
  std::string prefix_;
  std::uint64_t shard_bytes_;
  Contribution contribution_;
  std::map<std::string, std::size_t, std::less<>> indices_;  ///< of contribution_.tensors, by name
  std::vector<Pending> pending_;
  std::uint64_t pending_bytes_ = 0;
};

}  // namespace hadal::checkpoint
