#include "tests/support/plan_memory.h"

#include <map>

#include "comm/local/local_group.h"
#include "core/allocator.h"
#include "core/copy.h"
#include "core/parallel_for.h"
#include "core/rng.h"
#include "model/layer_options.h"
#include "optim/sharded_adamw.h"
#include "plan/forecast.h"
#include "schedule/make_plan.h"
#include "train/run_device.h"
#include "train/step.h"

namespace hadal::test {
namespace {

data::Batch synthetic_rows(const Config& config, std::int64_t rows) {
  const std::int64_t seq = config.data.sequence_length;
  const Shape shape{rows, seq};
  data::Batch batch{Tensor::empty(shape, DType::kI32), Tensor::empty(shape, DType::kI32), Tensor::empty(shape, DType::kU8),
                    Tensor::zeros(shape, DType::kI32), Tensor::zeros(shape, DType::kI32)};
  const Random random(7, RandomPurpose::kSynthetic);
  for (std::int64_t i = 0; i < rows * seq; ++i) {
    const auto id = [&](std::int64_t draw) {
      return static_cast<std::int32_t>(
          random.below(static_cast<std::uint64_t>(draw), static_cast<std::uint64_t>(config.model.vocab_size)));
    };
    batch.tokens.as<std::int32_t>()[i] = id(2 * i);
    batch.targets.as<std::int32_t>()[i] = id(2 * i + 1);
    batch.loss_mask.as<std::uint8_t>()[i] = 1;
  }
  return batch;
}

}  // namespace

std::vector<double> measured_peaks(const Config& config, int ranks) {
  std::vector<double> peaks(static_cast<std::size_t>(ranks));
  const int threads = num_threads();
  set_num_threads(1);
  comm::run_local_group(ranks, [&](comm::Communicator& world) {
    const Device device = train::run_device(config, world);
    HADAL_CHECK(device.is_cpu() || ranks == 1, "{} ranks share the count of {}", ranks, name_of(device));
    double& peak = peaks[static_cast<std::size_t>(world.rank())];
    {
      model::ModelOptions options = model::model_options(config, device);
      options.forced_routing = true;  // evenly, as the plan expects
      train::RunModel run(config, options, world);
      Stream stream = stream_of(device);
      optim::ShardedAdamW optimizer(config.optim, train::optimizer_groups(run), world);
      train::initialize(run, optimizer, stream, 1);
      train::TrainStep step(run, optimizer);
      const std::int64_t dp = run.layout().grid.dp(), rows = config.train.global_batch;
      const data::Batch batch = synthetic_rows(config, rows / dp + (run.place().dp_rank < rows % dp ? 1 : 0));
      const train::StepInput input{.lr = 1e-4, .mtp_weight = 0.3, .bias_speed = 1e-3};
      step.run(stream, batch, rows, config.train.micro_batch, input);
      device.is_cpu() ? reset_thread_peak() : reset_peak(device);
      step.run(stream, batch, rows, config.train.micro_batch, input);
      optimizer.wait_values();
      peak = static_cast<double>(device.is_cpu() ? thread_memory_stats().peak_bytes : memory_stats(device).peak_bytes);
    }
    if (!device.is_cpu()) peak -= static_cast<double>(memory_stats(device).live_bytes);
  });
  set_num_threads(threads);
  return peaks;
}

std::vector<double> planned_peaks(const Config& config, int ranks, const MachineSection& machine, bool scratch) {
  const plan::ForecastOptions options{.machine = machine, .expert_imbalance = 1.0, .threads = 1};
  const plan::Layout layout = plan::make_layout(config, ranks);
  std::vector<double> peaks;
  for (int rank = 0; rank < ranks; ++rank) {
    const parallel::Place place = layout.grid.place(rank);
    plan::RankShape shape(config, layout, options, place.cp_rank);
    if (!scratch) shape.kernels = plan::Kernels::kNone;
    const schedule::Plan made =
        schedule::make_plan(layout.request(plan::num_micro_batches(config, layout.grid, config.train.global_batch, place.dp_rank)));
    std::map<std::int64_t, plan::StageMemory> stages;
    for (const std::int64_t s : layout.stage_placement(place.pp_rank).slots) {
      stages[s] = plan::stage_memory(shape, layout.stages[static_cast<std::size_t>(s)], made.placement.is_last(static_cast<int>(s)));
    }
    peaks.push_back(static_cast<double>(plan::rank_memory(config, layout, shape, place, made, stages).peak));
  }
  return peaks;
}

}  // namespace hadal::test
