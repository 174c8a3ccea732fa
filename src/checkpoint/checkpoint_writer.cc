#include "checkpoint/checkpoint_writer.h"

#include <cstring>
#include <utility>

#include "checkpoint/assignment.h"
#include "checkpoint/open_files.h"
#include "checkpoint/tensor_hash.h"
#include "checkpoint/together.h"
#include "checkpoint/verify.h"
#include "comm/single.h"
#include "core/error.h"
#include "core/file.h"
#include "core/parallel_for.h"

namespace hadal::checkpoint {
namespace {

std::filesystem::path step_dir(const std::filesystem::path& dir, std::int64_t step) { return dir / fmt::format("step-{}", step); }

std::string shard_prefix(const comm::Communicator& world) {
  return world.size() == 1 ? "shard" : fmt::format("shard-{:05}", world.rank());
}

}  // namespace

CheckpointWriter::CheckpointWriter(const std::filesystem::path& dir, std::int64_t step, comm::Communicator& world,
                                   std::uint64_t shard_bytes)
    : CheckpointWriter(nullptr, &world, dir, step, shard_bytes) {}

CheckpointWriter::CheckpointWriter(const std::filesystem::path& dir, std::int64_t step, std::uint64_t shard_bytes)
    : CheckpointWriter(std::make_unique<comm::SingleCommunicator>(), nullptr, dir, step, shard_bytes) {}

CheckpointWriter::CheckpointWriter(std::unique_ptr<comm::Communicator> alone, comm::Communicator* world,
                                   const std::filesystem::path& dir, std::int64_t step, std::uint64_t shard_bytes)
    : alone_(std::move(alone)),
      world_(alone_ ? *alone_ : *world),
      dir_(dir),
      temporary_(step_dir(dir, step).string() + ".tmp"),
      step_(step),
      shards_(temporary_, shard_prefix(world_), shard_bytes) {
  HADAL_CHECK(step >= 0, "step {}", step);
  HADAL_CHECK(shard_bytes > 0 && shard_bytes <= std::uint64_t{1} << 30, "shards of {} bytes", shard_bytes);
  together(world_, [&] {
    if (world_.is_root()) prepare();
  });
}

void CheckpointWriter::prepare() {
  if (std::filesystem::exists(step_dir(dir_, step_))) {
    throw UserError("{}: exists; a committed checkpoint is never overwritten. Choose another directory, or move it away",
                    step_dir(dir_, step_).string());
  }
  std::filesystem::create_directories(dir_);
  std::filesystem::remove_all(temporary_);
  std::filesystem::create_directory(temporary_);
}

CheckpointWriter::~CheckpointWriter() {
  if (committed_ || !world_.is_root()) return;
  std::error_code ignored;
  std::filesystem::remove_all(temporary_, ignored);
}

void CheckpointWriter::attempt(const std::function<void()>& write) {
  if (failure_) return;
  try {
    write();
  } catch (const IoError&) {
    if (world_.size() == 1) throw;
    failure_ = std::current_exception();
    shards_.drop();
  }
}

void CheckpointWriter::add(const std::string& name, ConstView tensor) {
  add_slice({name, tensor.shape, whole_slice(tensor.shape)}, tensor);
}

void CheckpointWriter::add(const std::string& name, Tensor&& tensor) {
  const Shape shape = tensor.shape();
  add_slice({name, shape, whole_slice(shape)}, std::move(tensor));
}

void CheckpointWriter::add_slice(const SliceName& name, ConstView data) {
  attempt([&] { shards_.add(name, data); });
}

void CheckpointWriter::add_slice(const SliceName& name, Tensor&& data) {
  const auto owner = std::make_shared<const Tensor>(std::move(data));
  attempt([&] { shards_.add(name, owner->view(), owner); });
}

void CheckpointWriter::end_shard() {
  attempt([&] { shards_.flush(); });
}

void CheckpointWriter::read_back(const std::vector<Contribution>& contributions) const {
  const int before = (world_.rank() + world_.size() - 1) % world_.size();
  const std::vector<std::string> lines = damaged_blocks(temporary_, contributions[static_cast<std::size_t>(before)].files);
  if (!lines.empty()) throw IoError("{} right after it was written; the disk or its memory is faulty", lines[0]);
}

void CheckpointWriter::hash_tensors(Merged& merged) const {
  std::vector<StoredTensor>& tensors = merged.manifest.tensors;
  std::vector<std::int64_t> bytes;
  for (const std::size_t index : merged.unhashed) {
    bytes.push_back(tensors[index].shape.numel() * static_cast<std::int64_t>(size_of(tensors[index].dtype)));
  }
  const std::vector<int> rank_of = assign_evenly(bytes, world_.size());
  std::vector<Hash128> hashes(merged.unhashed.size());
  together(world_, [&] {
    parallel_for(static_cast<std::int64_t>(hashes.size()), [&](std::int64_t i) {
      const auto index = static_cast<std::size_t>(i);
      if (rank_of[index] != world_.rank()) return;
      OpenFiles files(temporary_, merged.manifest.files);
      hashes[index] = hash_pieces(tensors[merged.unhashed[index]], files);
    });
  });
  const std::span<const Hash128> mine(hashes);
  const std::vector<std::string> all = world_.all_gather({reinterpret_cast<const char*>(mine.data()), mine.size_bytes()});
  for (std::size_t i = 0; i < hashes.size(); ++i) {
    std::memcpy(&tensors[merged.unhashed[i]].hash, all[static_cast<std::size_t>(rank_of[i])].data() + i * sizeof(Hash128),
                sizeof(Hash128));
  }
}

void CheckpointWriter::write_manifest(const Manifest& manifest) const {
  const auto write = [&](std::string_view name, std::string_view text) {
    const auto bytes = std::as_bytes(std::span(text));
    write_durably(temporary_ / name, {&bytes, 1});
  };
  const std::string text = to_json(manifest);
  write(kManifestName, text);
  write(kCommitName, commit_text(text));
  sync_directory(temporary_);
}

void CheckpointWriter::publish() {
  const std::filesystem::path final_dir = step_dir(dir_, step_);
  std::error_code error;
  std::filesystem::rename(temporary_, final_dir, error);
  if (error) throw IoError("{}: rename to {} failed: {}", temporary_.string(), final_dir.string(), error.message());
  committed_ = true;
  sync_directory(dir_);
}

std::filesystem::path CheckpointWriter::commit() {
  HADAL_CHECK(!committed_, "step {} is committed already", step_);
  together(world_, [&] {
    if (failure_) std::rethrow_exception(failure_);
    shards_.flush();
    sync_directory(temporary_);
  });
  std::vector<Contribution> contributions;
  for (const std::string& bytes : world_.all_gather(to_bytes(shards_.contribution())))
    contributions.push_back(contribution_of(bytes));
  Merged merged = merge(contributions);
  together(world_, [&] { read_back(contributions); });
  hash_tensors(merged);
  merged.manifest.step = step_;
  merged.manifest.state = state_;
  together(world_, [&] {
    if (!world_.is_root()) return;
    write_manifest(merged.manifest);
    publish();
  });
  committed_ = true;
  return step_dir(dir_, step_);
}

}  // namespace hadal::checkpoint
