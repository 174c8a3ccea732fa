#include "train/optimizer_bench.h"

#include <algorithm>
#include <chrono>
#include <functional>
#include <vector>

#include "comm/single.h"
#include "core/copy.h"
#include "kernels/cast.h"
#include "model/model.h"
#include "optim/sharded_adamw.h"
#include "train/run_device.h"

namespace hadal::train {
namespace {

constexpr int kUpdates = 31;

/// Median seconds of finish, norm, update and the wait for values; `before` comes first and counts.
double median_update(const Config& config, comm::Communicator& world, comm::Communicator& replicas,
                     const std::function<void(optim::ShardedAdamW&)>& before) {
  const Device device = run_device(config, world);
  Stream stream = stream_of(device);
  model::Model model(model::model_options(config, device));
  optim::ShardedAdamW optimizer(config.optim, {{&replicas, model.parameters()}}, replicas);
  optimizer.initialize(stream, static_cast<std::uint64_t>(config.run.seed));
  std::vector<double> seconds;
  for (int update = 0; update <= kUpdates; ++update) {
    optimizer.zero_grad();
    for (nn::Parameter* parameter : optimizer.parameters()) {
      // The values themselves: finite, and not all zero.
      run(stream, kernels::Cast{.x = static_cast<const nn::Parameter*>(parameter)->value(), .y = parameter->grad()});
    }
    synchronize(stream);
    world.barrier();
    const auto begin = std::chrono::steady_clock::now();
    before(optimizer);
    optimizer.finish();
    optimizer.begin_step(stream, config.optim.lr);
    optimizer.step(stream, optimizer.grad_norm_squared(stream));
    optimizer.wait_values();
    synchronize(stream);
    world.barrier();
    if (update > 0) seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  std::ranges::sort(seconds);
  return seconds[seconds.size() / 2];
}

}  // namespace

OptimizerBench bench_optimizer(const Config& config, comm::Communicator& world) {
  comm::SingleCommunicator alone;
  OptimizerBench result;
  result.whole_s = median_update(config, world, alone, [&](optim::ShardedAdamW& optimizer) {
    std::vector<View> gradients;
    for (nn::Parameter* parameter : optimizer.parameters()) gradients.push_back(parameter->grad());
    world.all_reduce_sum(gradients);
  });
  result.sharded_s = median_update(config, world, world, [](optim::ShardedAdamW&) {});
  return result;
}

}  // namespace hadal::train
