// Reads one committed checkpoint by verified offset: plain reads at the manifest's offsets, no HDF5 (spec/reliability.md 2,
// mechanism 3). A byte that is not what was committed is refused, with file and block or tensor.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "checkpoint/manifest.h"
#include "core/file.h"
#include "core/tensor.h"

namespace hadal::checkpoint {

/// What open() checks beyond manifest, sizes and file set. Reading a tensor always checks that tensor.
enum class Check { kManifest, kEveryBlock };

class CheckpointReader {
 public:
  /// `step_dir` holds manifest.json. DamagedDataError when anything differs from what was committed.
  static CheckpointReader open(const std::filesystem::path& step_dir, Check check = Check::kEveryBlock);

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

  /// Dtype and shape must be the stored ones (UserError otherwise): never a silent cast. The content hash is checked.
  void read_into(const StoredTensor& tensor, View into) const;
  Tensor read(const StoredTensor& tensor) const;
  /// Explicit conversion between f64, f32 and bf16 (to nearest); equal dtypes are copied.
  void read_converted(const StoredTensor& tensor, View into) const;

  /// Reads everything again; one line per file block and tensor that is not as committed, empty when all is well.
  std::vector<std::string> damage() const;

 private:
  CheckpointReader(std::filesystem::path path, Manifest manifest, std::vector<File> files)
      : path_(std::move(path)), manifest_(std::move(manifest)), files_(std::move(files)) {}

  std::vector<std::string> damaged_blocks() const;
  void read_piece(const StoredTensor& tensor, const Piece& piece, View into) const;

  std::filesystem::path path_;
  Manifest manifest_;
  std::vector<File> files_;
};

}  // namespace hadal::checkpoint
