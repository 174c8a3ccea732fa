// Guards: a run goes over from any of twelve layouts to any other: weights, biases, moments and averages of the real model,
// loaded by the one and saved again, are those that the other saved, bit for bit (spec/reliability.md 3, T9).
#include <gtest/gtest.h>

#include <set>

#include "checkpoint/checkpoint_reader.h"
#include "comm/local/local_group.h"
#include "config/load.h"
#include "tests/support/small_run.h"
#include "tests/support/temp_dir.h"
#include "train/run_data.h"
#include "train/run_model.h"
#include "train/run_state.h"

namespace hadal {
namespace {

struct Layout {
  int ranks;
  std::vector<std::string> overrides;
};

const std::vector<Layout>& layouts() {
  static const std::vector<Layout> all = {
      {1, {}},
      {2, {}},
      {3, {}},
      {2, {"parallel.tp=2"}},
      {2, {"parallel.pp=2"}},
      {2, {"parallel.pp=2", "parallel.schedule=dualpipe_v"}},
      {2, {"parallel.cp=2"}},
      {4, {"parallel.ep=4"}},
      {4, {"parallel.tp=4", "parallel.ep=2", "parallel.etp=2"}},
      {4, {"parallel.pp=2", "parallel.schedule=dualpipe", "parallel.tp=2", "parallel.ep=2"}},
      {6, {"parallel.tp=2", "parallel.ep=2"}},
      {8, {"parallel.pp=2", "parallel.cp=2", "parallel.tp=2", "parallel.ep=2", "parallel.etp=2"}},
  };
  return all;
}

std::vector<std::string> with(std::vector<std::string> overrides, const std::vector<std::string>& more) {
  overrides.insert(overrides.end(), more.begin(), more.end());
  return overrides;
}

TEST(ReshardRun, TwelveLayoutsOfTheModelLoadEachOther) {
  const test::TempDir dir;
  const test::SmallRun run{dir.path(),
                           {"model.num_layers=4", "model.attention.num_heads=4", "data.sequence_length=32", "train.steps=2",
                            "train.global_batch=24", "checkpoint.keep_last=100"}};
  const std::string source = "data.sources=[{path: " + (dir / "tokens.h5").string() + "}]";
  std::set<std::string> kinds;
  for (std::size_t a = 0; a < layouts().size(); ++a) {
    const std::string name = "run" + std::to_string(a);
    run.train(name, layouts()[a].ranks, layouts()[a].overrides);
    const auto saved = checkpoint::CheckpointReader::open(dir / name / "checkpoints" / "step-2");
    for (const Layout& b : layouts()) {
      const auto overrides = with(with(run.overrides, b.overrides), {"run.dir=" + (dir / name).string(), source});
      const LoadedConfig loaded = load_config(run.config_path(), overrides);
      Config again = loaded.config;
      again.run.dir = (dir / (name + "_again")).string();
      std::filesystem::remove_all(again.run.dir);
      comm::run_local_group(b.ranks, [&](comm::Communicator& world) {
        const train::RunData data = train::open_run_data(loaded.config);
        train::RunModel model(loaded.config, model::model_options(loaded.config), world);
        optim::ShardedAdamW optimizer(loaded.config.optim, train::optimizer_groups(model), world);
        const auto state = train::restore_run(loaded.config, model.model(), optimizer, *data.training, world);
        ASSERT_TRUE(state.has_value());
        EXPECT_EQ(state->step, 2);
        EXPECT_EQ(train::save_run(again, *state, model.model(), optimizer, *data.training, world, nullptr), "");
      });
      const auto reader = checkpoint::CheckpointReader::open(dir / (name + "_again") / "checkpoints" / "step-2");
      ASSERT_EQ(reader.tensors().size(), saved.tensors().size());
      for (std::size_t i = 0; i < saved.tensors().size(); ++i) {
        const checkpoint::StoredTensor &one = saved.tensors()[i], &other = reader.tensors()[i];
        EXPECT_EQ(one.name, other.name);
        EXPECT_EQ(one.hash, other.hash) << one.name << ", from " << ::testing::PrintToString(layouts()[a].overrides) << " to "
                                        << ::testing::PrintToString(b.overrides);
        kinds.insert(one.name.substr(0, one.name.find('/') + 1));
      }
    }
  }
  EXPECT_EQ(kinds, (std::set<std::string>{"", "ema/", "optim.m/", "optim.v/"}));
}

}  // namespace
}  // namespace hadal
