// hadal train CONFIG [k=v...]: one rank alone, or one of many under mpirun or srun.
#include <CLI/CLI.hpp>

#include "cli/common_flags.h"
#include "cli/rank_threads.h"
#include "comm/launcher.h"
#include "comm/world.h"
#include "config/load.h"
#include "core/log.h"
#include "core/parallel_for.h"
#include "train/signals.h"
#include "train/trainer.h"

namespace hadal::cli {
int train_command(const std::vector<std::string>& arguments) {
  CLI::App app;
  ConfigArguments config;
  OutputFlags output;
  add_config_arguments(app, config);
  add_quiet_flag(app, output);
  parse_arguments(app, "train", arguments);
  const train::SignalHandlers handlers(comm::detect_launcher().term_asks());

  const LoadedConfig loaded = load_config(config.path, config.overrides);
  std::unique_ptr<comm::Communicator> world = comm::init_from_environment();
  set_log_rank(world->rank(), world->size());
  set_num_threads(threads_of_rank(loaded.config.run.threads, *world));
  const int code = train::Trainer(loaded, *world, output.quiet).run();
  return comm::finish(std::move(world), code);
}

}  // namespace hadal::cli
