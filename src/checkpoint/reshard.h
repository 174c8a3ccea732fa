// A checkpoint written anew into other shard files: as many as somebody wants, or none larger than so many bytes. Every logical
// tensor keeps its hash, and the run's state goes along.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

#include "checkpoint/checkpoint_reader.h"
#include "checkpoint/checkpoint_writer.h"
#include "checkpoint/tensor_hash.h"

namespace hadal::checkpoint {

struct ReshardOptions {
  std::optional<std::int64_t> num_shards;                     ///< exactly so many files of about equal size
  std::uint64_t shard_bytes = CheckpointWriter::kShardBytes;  ///< otherwise: tensor bytes of a file at most, up to 1 GiB
  OnBytes on_bytes;                                           ///< of tensors written
};

/// Writes `dir`/step-N, N being the step of `from`, and returns it. One shard is in memory at a time. UserError when that step is
/// there already, or when the shards would be larger than 1 GiB or smaller than 4 KiB.
std::filesystem::path reshard(const CheckpointReader& from, const std::filesystem::path& dir, const ReshardOptions& options);

}  // namespace hadal::checkpoint
