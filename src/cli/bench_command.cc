// hadal bench CONFIG: tokens/s of whole training steps on synthetic tokens, natural and forced-balanced routing.
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstdio>

#include "cli/command_functions.h"
#include "cli/common_flags.h"
#include "cli/rank_threads.h"
#include "comm/single.h"
#include "comm/world.h"
#include "config/load.h"
#include "core/parallel_for.h"
#include "model/layer_options.h"
#include "model/parameter_count.h"
#include "train/bench.h"
#include "train/device_peak.h"
#include "train/optimizer_bench.h"
#include "train/run_device.h"

namespace hadal::cli {

int bench_command(const std::vector<std::string>& arguments) {
  CLI::App app;
  ConfigArguments config_arguments;
  OutputFlags output;
  int threads = 0;
  std::int64_t warmup = 2, steps = 7;
  bool weak_scaling = false;
  add_config_arguments(app, config_arguments);
  add_output_flags(app, output);
  app.add_option("--threads", threads, "threads per rank (default: run.threads)")->check(CLI::Range(1, 1024));
  app.add_option("--warmup", warmup, "steps before the clock runs")->check(CLI::Range(0, 1000));
  app.add_option("--steps", steps, "timed steps; the median counts")->check(CLI::Range(1, 100000));
  app.add_flag("--weak-scaling", weak_scaling, "first rank 0 alone with its share of the batch: tokens/s of all ranks over as many times that");
  parse_arguments(app, "bench", arguments);

  const Config config = load_config(config_arguments.path, config_arguments.overrides).config;
  std::unique_ptr<comm::Communicator> world = comm::init_from_environment();
  set_num_threads(threads_of_rank(threads > 0 ? threads : config.run.threads, *world));
  const Storage storage = model::model_options(config, train::run_device(config, *world)).storage();
  const double peak = train::peak_flops(storage) * world->size();
  const double flops = model::model_flops_per_token(config.model, config.data.sequence_length);
  train::BenchResult alone;
  if (weak_scaling && world->is_root()) {
    Config share = config;
    share.train.global_batch = std::max<std::int64_t>(config.train.global_batch / world->size(), config.train.micro_batch);
    share.parallel = {};
    comm::SingleCommunicator one;
    alone = train::bench_steps(share, one, false, warmup, steps);
  }
  world->barrier();
  const train::BenchResult natural = train::bench_steps(config, *world, false, warmup, steps);
  const train::BenchResult forced = config.model.moe.num_experts > 0 ? train::bench_steps(config, *world, true, warmup, steps) : natural;
  train::OptimizerBench update;
  if (world->size() > 1) update = train::bench_optimizer(config, *world);
  if (world->is_root()) {
    std::printf("%-10s %12s %10s %12s %10s\n", "routing", "tokens/s", "of peak", "ms/step", "loss");
    const double step_tokens = static_cast<double>(config.train.global_batch * config.data.sequence_length);
    for (const auto& [name, r] : {std::pair{"natural", natural}, std::pair{"forced", forced}}) {
      std::printf("%-10s %12.0f %9.1f%% %12.1f %10.4f\n", name, r.tokens_per_s, 100 * r.tokens_per_s * flops / peak, 1e3 * step_tokens / r.tokens_per_s,
                  r.loss);
    }
    std::printf("%d rank(s) x %d thread(s), %s on %s, measured peak %.1f GFLOP/s, %.1f MFLOP per token, peak memory %.2f GiB a rank\n", world->size(),
                num_threads(), std::string(name_of(storage.dtype)).c_str(), name_of(storage.device).c_str(), peak / 1e9, flops / 1e6, static_cast<double>(natural.peak_bytes) / (1 << 30));
    if (weak_scaling) {
      std::printf("weak scaling from 1 to %d ranks: %.3f (%.0f tokens/s alone)\n", world->size(), natural.tokens_per_s / (world->size() * alone.tokens_per_s),
                  alone.tokens_per_s);
    }
    if (world->size() > 1) {
      std::printf("waits of a rank: %.1f %% of a step\n", 100 * natural.waited_share);
      std::printf("gradient sum and update: %.1f ms with ZeRO-1, %.1f ms with an all-reduce and the whole update on every rank: %.2f of it\n",
                  1e3 * update.sharded_s, 1e3 * update.whole_s, update.sharded_s / update.whole_s);
    }
    nlohmann::ordered_json figures{{"tokens_per_s", {{"natural", natural.tokens_per_s}, {"forced", forced.tokens_per_s}}},
                                   {"model_flops_per_token", flops},
                                   {"flops_share_of_gemm_peak", natural.tokens_per_s * flops / peak},
                                   {"gemm_peak_flops", peak},
                                   {"peak_bytes", natural.peak_bytes},
                                   {"threads", num_threads()},
                                   {"ranks", world->size()},
                                   {"device", name_of(storage.device)}};
    figures["waited_share"] = natural.waited_share;
    if (weak_scaling) figures["weak_scaling"] = natural.tokens_per_s / (world->size() * alone.tokens_per_s);
    if (world->size() > 1) figures["update_ms"] = {{"zero_1", 1e3 * update.sharded_s}, {"all_reduce", 1e3 * update.whole_s}};
    write_figures(output, figures.dump(2));
  }
  return comm::finish(std::move(world), 0);
}

}  // namespace hadal::cli
