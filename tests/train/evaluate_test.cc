// Guards: evaluation through a pipeline has the bits of evaluation without one, whatever the schedule and however many micro-batches
// there are; they follow each other through the pipeline; what is held does not grow with the text.
#include "train/evaluate.h"

#include <gtest/gtest.h>

#include <set>

#include "comm/ledger_snapshot.h"
#include "comm/local/local_group.h"
#include "config/load.h"
#include "core/allocator.h"
#include "tests/support/small_run.h"
#include "tests/support/temp_dir.h"
#include "train/run_data.h"

namespace hadal {
namespace {

using Overrides = std::vector<std::string>;

/// What rank 0 has after an evaluation.
struct Evaluated {
  train::EvaluationResult result;
  std::size_t peak_bytes = 0;
  std::set<int> sent;  ///< micro-batches of the messages among its last calls
};

/// Of fresh weights over the first `tokens` tokens of the run's file.
Evaluated evaluate(const test::TempDir& dir, int ranks, const Overrides& parallel, std::int64_t tokens) {
  const test::SmallRun run{dir.path(), {}};
  const std::string file = "[{path: " + (dir / "tokens.h5").string() + "}]";
  Overrides overrides{"model.num_layers=4", "model.attention.num_heads=4", "data.sequence_length=32", "train.global_batch=24",
                      "data.sources=" + file, "data.validation_sources=" + file};
  overrides.insert(overrides.end(), parallel.begin(), parallel.end());
  const Config config = load_config(run.config_path(), overrides).config;
  Evaluated evaluated;
  comm::run_local_group(ranks, [&](comm::Communicator& world) {
    const train::RunData data = train::open_run_data(config);
    train::RunModel model(config, model::model_options(config), world);
    model.model().initialize(1);
    Stream stream;
    reset_thread_peak();
    const std::size_t before = thread_memory_stats().peak_bytes;
    const train::EvaluationResult result = train::evaluate(model, stream, *data.validation, tokens, config.train.micro_batch, nullptr);
    if (!world.is_root()) return;
    evaluated.result = result;
    evaluated.peak_bytes = thread_memory_stats().peak_bytes - before;
    if (world.ledger() == nullptr) return;
    const comm::RankSnapshot ledger = comm::snapshot_of(world.ledger()->memory());
    for (const comm::CallSnapshot& call : ledger.calls) {
      if (call.op == comm::Op::kSend && call.position.phase == "sending forward") evaluated.sent.insert(call.position.micro_batch);
    }
  });
  return evaluated;
}

void expect_same_bits(const train::EvaluationResult& a, const train::EvaluationResult& b) {
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(a.loss, b.loss);
  EXPECT_EQ(a.mtp_loss, b.mtp_loss);
  EXPECT_EQ(a.acceptance, b.acceptance);
  EXPECT_EQ(a.unigram_entropy, b.unigram_entropy);
}

TEST(Evaluate, APipelineChangesNoBit) {
  struct Base {
    int ranks;
    Overrides parallel;
  };
  const std::vector<Base> bases{{1, {}}, {2, {"parallel.tp=2"}}, {2, {"parallel.cp=2"}}, {2, {"parallel.ep=2"}}, {3, {}}};
  const test::TempDir dir;
  for (const Base& base : bases) {
    // 19 micro-batches of one place: two batches of pipelines of two and what is left over; then a single row.
    for (const std::int64_t tokens : {37 * 32, 32}) {
      const train::EvaluationResult plain = evaluate(dir, base.ranks, base.parallel, tokens).result;
      EXPECT_GT(plain.tokens, tokens / 2);
      EXPECT_GT(plain.loss, 3.0);
      EXPECT_GT(plain.mtp_loss, 3.0);
      for (const char* schedule : {"gpipe", "1f1b", "interleaved", "zb_h1", "dualpipe_v", "dualpipe"}) {
        SCOPED_TRACE(testing::PrintToString(base.parallel) + " " + schedule + ", " + std::to_string(tokens) + " tokens");
        Overrides parallel = base.parallel;
        parallel.insert(parallel.end(), {"parallel.pp=2", std::string("parallel.schedule=") + schedule});
        expect_same_bits(evaluate(dir, 2 * base.ranks, parallel, tokens).result, plain);
      }
    }
  }
}

TEST(Evaluate, MicroBatchesFollowEachOtherThroughThePipeline) {
  const test::TempDir dir;
  // Of a rank's last 64 calls: a batch has eight micro-batches, and the last one here is full.
  EXPECT_EQ(evaluate(dir, 2, {"parallel.pp=2"}, 32 * 32).sent, (std::set<int>{0, 1, 2, 3, 4, 5, 6, 7}));
}

TEST(Evaluate, MemoryDoesNotGrowWithTheText) {
  const test::TempDir dir;
  for (const char* schedule : {"1f1b", "dualpipe"}) {
    const Overrides parallel{"parallel.pp=2", std::string("parallel.schedule=") + schedule};
    const Evaluated some = evaluate(dir, 2, parallel, 16 * 32), more = evaluate(dir, 2, parallel, 64 * 32);
    EXPECT_GT(more.result.tokens, 3 * some.result.tokens);
    EXPECT_LE(static_cast<double>(more.peak_bytes), 1.02 * static_cast<double>(some.peak_bytes) + 1024) << schedule;
  }
}

}  // namespace
}  // namespace hadal
