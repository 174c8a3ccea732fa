#include "train/bench.h"

#include <algorithm>
#include <numeric>
#include <chrono>
#include <vector>

#include "core/copy.h"
#include "core/rng.h"
#include "data/sampler.h"
#include "optim/lr_schedule.h"
#include "train/run_device.h"
#include "train/step.h"

namespace hadal::train {
namespace {

/// Rows of uniformly random tokens, one document each.
data::Batch synthetic_batch(const Config& config, const data::RowRange& rows) {
  const std::int64_t seq = config.data.sequence_length;
  const Shape shape{rows.end - rows.begin, seq};
  data::Batch batch{Tensor::empty(shape, DType::kI32), Tensor::empty(shape, DType::kI32), Tensor::empty(shape, DType::kU8),
                    Tensor::empty(shape, DType::kI32), Tensor::zeros(shape, DType::kI32)};
  const Random random(static_cast<std::uint64_t>(config.run.seed), RandomPurpose::kSynthetic);
  const auto token = [&](std::int64_t row, std::int64_t i) {
    return static_cast<std::int32_t>(
        random.below(static_cast<std::uint64_t>(row * (seq + 1) + i), static_cast<std::uint64_t>(config.model.vocab_size)));
  };
  for (std::int64_t r = rows.begin; r < rows.end; ++r) {
    for (std::int64_t i = 0; i < seq; ++i) {
      const std::int64_t at = (r - rows.begin) * seq + i;
      batch.tokens.as<std::int32_t>()[at] = token(r, i);
      batch.targets.as<std::int32_t>()[at] = token(r, i + 1);
      batch.loss_mask.as<std::uint8_t>()[at] = 1;
      batch.positions.as<std::int32_t>()[at] = static_cast<std::int32_t>(i);
    }
  }
  return batch;
}

}  // namespace

BenchResult bench_steps(const Config& config, comm::Communicator& world, bool forced, std::int64_t warmup, std::int64_t steps) {
  const Device device = run_device(config, world);
  model::ModelOptions options = model::model_options(config, device);
  options.forced_routing = forced;
  reset_peak(device);
  RunModel run(config, options, world);
  optim::ShardedAdamW optimizer(config.optim, optimizer_groups(run), world);
  TrainStep step(run, optimizer, config.run.cuda_graph && !device.is_cpu());
  Stream stream = stream_of(device);
  initialize(run, optimizer, stream, config.run.seed);
  const std::int64_t rows = config.train.global_batch;
  const data::Batch batch = synthetic_batch(config, data::rows_of_rank(rows, static_cast<int>(run.place().dp_rank), static_cast<int>(run.layout().grid.dp())));
  BenchResult result;
  std::vector<double> seconds;
  const auto waited = [&] { return world.ledger() == nullptr ? 0.0 : world.ledger()->waited_seconds(); };
  double waited_before = 0;
  for (std::int64_t s = 0; s < warmup + steps; ++s) {
    if (s == warmup) waited_before = waited();
    const auto begin = std::chrono::steady_clock::now();
    const StepInput input{.lr = optim::learning_rate(config.optim, s, warmup + steps),
                          .mtp_weight = config.balance.mtp_weight,
                          .bias_speed = config.balance.bias_update_speed};
    result.loss = step.run(stream, batch, rows, config.train.micro_batch, input).loss;
    synchronize(stream);
    if (s >= warmup) seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  const double share = (waited() - waited_before) / std::reduce(seconds.begin(), seconds.end());
  result.waited_share = world.all_reduce_sum(share) / world.size();
  std::ranges::sort(seconds);
  result.tokens_per_s = static_cast<double>(rows * config.data.sequence_length) / seconds[seconds.size() / 2];
  result.peak_bytes = static_cast<std::int64_t>(memory_stats(device).peak_bytes);
  return result;
}

}  // namespace hadal::train
