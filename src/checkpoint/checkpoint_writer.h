// Writes one checkpoint: `<dir>/step-N/` appears complete or not at all (spec/reliability.md 2, mechanism 1).
//
//   CheckpointWriter writer(run_dir / "checkpoints", step, world);  // without `world`: this process alone
//   save_parameters(writer, parameters, "");                        // checkpoint/parameters.h: what this rank is to write
//   writer.state().set("tokens", tokens);
//   writer.commit();
//
// Every rank writes its own shards to `step-N.tmp/` as they fill up. Commit syncs them, checks that the slices of all ranks tile
// every logical tensor, reads everything back on another rank than the one that wrote it, hashes the tensors that lie in several
// ranks' files, writes the manifest and renames (rank 0).
#pragma once

#include <cstdint>
#include <exception>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include "checkpoint/contribution.h"
#include "checkpoint/shard_writer.h"
#include "checkpoint/state.h"
#include "comm/communicator.h"
#include "core/tensor.h"

namespace hadal::checkpoint {

class CheckpointWriter {
 public:
  static constexpr std::uint64_t kShardBytes = std::uint64_t{128} << 20;

  /// `dir` is made when absent. A leftover step-N.tmp of a dead process is removed (hold the run lock); a step-N that exists is a
  /// UserError: a committed checkpoint is never overwritten. `shard_bytes` limits a shard's tensor bytes, at most 1 GiB.
  /// Collective.
  CheckpointWriter(const std::filesystem::path& dir, std::int64_t step, comm::Communicator& world,
                   std::uint64_t shard_bytes = kShardBytes);
  CheckpointWriter(const std::filesystem::path& dir, std::int64_t step, std::uint64_t shard_bytes = kShardBytes);
  /// Without commit() the temporary directory goes away.
  ~CheckpointWriter();
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;

  /// A whole logical tensor. Its memory must stay alive and unchanged until commit() returns. With several ranks, exactly one of
  /// them adds it. None of the calls to add is collective: a disk that is full is remembered and told by commit(), alike on every
  /// rank; alone, it is an IoError at once.
  void add(const std::string& name, ConstView tensor);
  /// The same for a tensor that is given away: its memory goes with the shard it lies in.
  void add(const std::string& name, Tensor&& tensor);
  /// A slice of a logical tensor (packed elements, of any shape); all ranks' slices together must tile it.
  void add_slice(const SliceName& name, ConstView data);
  void add_slice(const SliceName& name, Tensor&& data);
  /// What this rank adds next goes into another file.
  void end_shard();
  /// Rank 0's is written.
  State& state() { return state_; }
  /// Returns the step directory. An IoError is the same on every rank; it leaves older checkpoints untouched and nothing
  /// half-written behind. Collective.
  std::filesystem::path commit();

 private:
  CheckpointWriter(std::unique_ptr<comm::Communicator> alone, comm::Communicator* world, const std::filesystem::path& dir,
                   std::int64_t step, std::uint64_t shard_bytes);

  void prepare();
  /// Runs a write; see add().
  void attempt(const std::function<void()>& write);
  /// Reads back the files of the rank before this one.
  void read_back(const std::vector<Contribution>& contributions) const;
  /// Fills in the hashes that no rank knew.
  void hash_tensors(Merged& merged) const;
  void write_manifest(const Manifest& manifest) const;
  void publish();

  std::unique_ptr<comm::Communicator> alone_;  ///< the world of a writer without one
  comm::Communicator& world_;
  std::filesystem::path dir_;
  std::filesystem::path temporary_;
  std::int64_t step_;
  State state_;
  ShardWriter shards_;
  std::exception_ptr failure_;  ///< of an earlier write on this rank
  bool committed_ = false;
};

}  // namespace hadal::checkpoint
