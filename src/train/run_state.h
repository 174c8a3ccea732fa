// What a run is besides its tensors, and how both are saved and restored.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "comm/communicator.h"
#include "config/config.h"
#include "data/sampler.h"
#include "model/distributed_model.h"
#include "optim/sharded_adamw.h"
#include "train/metrics.h"

namespace hadal::train {

struct RunState {
  std::int64_t step = 0;         ///< optimizer steps tried (a skipped update counts)
  std::int64_t tokens = 0;       ///< trained
  std::uint64_t next_sample = 0; ///< global index of the next sample
};

/// Writes a checkpoint of everything into `run_dir`/checkpoints/step-N, each rank its share, and keeps the newest
/// `config.checkpoint.keep_last`; `metrics` (rank 0, may be null) reaches the disk first. Empty when done; when the system refused (a full disk), what it said, the
/// same on every rank, with older checkpoints untouched. Collective.
std::string save_run(const Config& config, const RunState& state, model::DistributedModel& model, optim::ShardedAdamW& optimizer,
                     const data::Sampler& sampler, comm::Communicator& world, MetricsWriter* metrics);

/// Restores the newest sound checkpoint of the run directory; nothing when there is none. UserError when the saved run's model or
/// data are not this config's. Collective; every rank reads what it holds.
std::optional<RunState> restore_run(const Config& config, model::DistributedModel& model, optim::ShardedAdamW& optimizer,
                                    const data::Sampler& sampler, comm::Communicator& world);

/// Weights and balancing biases of a checkpoint (step, checkpoints or run directory) into the model and the optimizer's masters; every
/// tensor must fit. MTP modules
/// alone may be absent on either side (an imported model has none): missing ones keep the values they have, extra ones are left out.
void load_weights(const std::filesystem::path& checkpoint, model::DistributedModel& model, optim::ShardedAdamW& optimizer,
                  comm::Communicator& world);

}  // namespace hadal::train
