// Reads one committed checkpoint by verified offset: plain reads at the manifest's offsets, no HDF5 (spec/reliability.md 2,
// mechanism 3). A byte that is not what was committed is refused, with file and block or tensor.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "checkpoint/manifest.h"
#include "checkpoint/slice_read.h"
#include "checkpoint/tensor_hash.h"
#include "comm/communicator.h"
#include "core/tensor.h"

namespace hadal::checkpoint {

/// What open() checks beyond manifest, sizes and file set. Reading always verifies what is read.
enum class Check { kManifest, kEveryBlock };

class CheckpointReader {
 public:
  /// `step_dir` holds manifest.json. DamagedDataError when anything differs from what was committed.
  static CheckpointReader open(const std::filesystem::path& step_dir, Check check = Check::kEveryBlock);
  /// The same by all ranks together: rank 0 looks at the directory and hands the manifest on, each rank verifies its share of the
  /// blocks, and all throw the same error. `step_dir` of rank 0 counts. Collective.
  static CheckpointReader open(const std::filesystem::path& step_dir, comm::Communicator& world,
                               Check check = Check::kEveryBlock);

  std::int64_t step() const { return manifest_.step; }
  const std::filesystem::path& path() const { return path_; }
  const State& state() const { return manifest_.state; }
  const std::vector<StoredFile>& files() const { return manifest_.files; }
  /// Sorted by name.
  const std::vector<StoredTensor>& tensors() const { return manifest_.tensors; }
  /// nullptr when there is none.
  const StoredTensor* find(std::string_view name) const;
  /// UserError naming the checkpoint when there is none.
  const StoredTensor& at(std::string_view name) const;

  /// Dtype and shape must be the stored ones (UserError otherwise): never a silent cast.
  void read_into(const StoredTensor& tensor, View into) const;
  Tensor read(const StoredTensor& tensor) const;
  /// Explicit conversion between f64, f32 and bf16 (to nearest); equal dtypes are copied.
  void read_converted(const StoredTensor& tensor, View into) const;
  /// Slices, or ranges of their elements, of any tensors of this checkpoint (slice_read.h). Each of the stored dtype, or
  /// converted.
  void read_slices(std::span<const SliceRead> reads) const { checkpoint::read_slices(path_, manifest_, reads); }

  /// Reads everything; one line per file block, file and tensor that is not as committed, empty when all is well.
  std::vector<std::string> damage(const OnBytes& on_bytes = {}) const;

 private:
  CheckpointReader(std::filesystem::path path, Manifest manifest) : path_(std::move(path)), manifest_(std::move(manifest)) {}

  std::filesystem::path path_;
  Manifest manifest_;
};

}  // namespace hadal::checkpoint
