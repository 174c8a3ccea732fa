// Writes one checkpoint: `<dir>/step-N/` appears complete or not at all (spec/reliability.md 2, mechanism 1).
//
//   CheckpointWriter writer(run_dir / "checkpoints", step);
//   save_parameters(writer, parameters, "");           // checkpoint/parameters.h
//   writer.state().set("tokens", tokens);
//   writer.commit();
//
// Shards go to `step-N.tmp/` as they fill up; commit syncs, reads everything back, compares hashes, writes the manifest, renames.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/manifest.h"
#include "checkpoint/shard_image.h"
#include "checkpoint/state.h"
#include "core/tensor.h"

namespace hadal::checkpoint {

class CheckpointWriter {
 public:
  static constexpr std::uint64_t kShardBytes = std::uint64_t{128} << 20;

  /// `dir` is made when absent. A leftover step-N.tmp of a dead process is removed (hold the run lock); a step-N that exists is a
  /// UserError: a committed checkpoint is never overwritten. `shard_bytes` limits a shard's tensor bytes, at most 1 GiB.
  CheckpointWriter(const std::filesystem::path& dir, std::int64_t step, std::uint64_t shard_bytes = kShardBytes);
  /// Without commit() the temporary directory goes away.
  ~CheckpointWriter();
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  /// A whole logical tensor. Its memory must stay alive and unchanged until commit() returns. Tensors larger than a shard are
  /// cut into pieces along dim 0.
  void add(const std::string& name, ConstView tensor);
  /// The same for a tensor that is given away: its memory goes with the shard it lies in.
  void add(const std::string& name, Tensor&& tensor);
  State& state() { return manifest_.state; }
  /// Returns the step directory. IoError leaves older checkpoints untouched and nothing half-written behind.
  std::filesystem::path commit();

 private:
  struct Pending {
    std::size_t tensor;  ///< index into manifest_.tensors
    Piece piece;
    ShardPiece data;
    std::shared_ptr<const Tensor> owner;  ///< set when the writer owns the memory
  };

  void add_whole(const std::string& name, ConstView tensor, const std::shared_ptr<const Tensor>& owner);
  void add_piece(std::size_t tensor, std::int64_t begin, std::int64_t end, ConstView data,
                 const std::shared_ptr<const Tensor>& owner);
  void flush();
  void write_durably(const std::string& name, std::span<const std::byte> bytes) const;
  void read_back() const;

  std::filesystem::path dir_;
  std::filesystem::path temporary_;
  std::uint64_t shard_bytes_;
  Manifest manifest_;
  std::set<std::string> names_;
  std::vector<Pending> pending_;
  std::uint64_t pending_bytes_ = 0;
  bool committed_ = false;
};

}  // namespace hadal::checkpoint
