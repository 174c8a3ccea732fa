// Guards: a run on the device follows the CPU's in f32, and bf16 follows f32; it resumes with the same bits; its checkpoint is the same
// model on the CPU, in evaluation, logits and generation. test_device runs the same tests on a fake device.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "checkpoint/checkpoint_reader.h"
#include "checkpoint/store.h"
#include "comm/single.h"
#include "core/copy.h"
#include "data/open_source.h"
#include "infer/generator.h"
#include "tests/support/gradient_check.h"
#include "tests/support/small_run.h"
#include "tests/support/temp_dir.h"
#include "train/evaluate.h"
#include "train/load_model.h"
#include "train/run_data.h"

namespace hadal {
namespace {

using test::column;
using test::SmallRun;

std::vector<std::string> on_cuda(const char* precision, std::vector<std::string> more = {}) {
  more.insert(more.end(), {std::string("precision.compute=") + precision, "run.device=cuda"});
  return more;
}

void expect_same_tensors(const std::filesystem::path& a, const std::filesystem::path& b) {
  const auto x = checkpoint::CheckpointReader::open(checkpoint::find_checkpoint(a)),
             y = checkpoint::CheckpointReader::open(checkpoint::find_checkpoint(b));
  ASSERT_EQ(x.tensors().size(), y.tensors().size());
  for (std::size_t i = 0; i < x.tensors().size(); ++i) EXPECT_EQ(x.tensors()[i].hash, y.tensors()[i].hash) << x.tensors()[i].name;
}

class RunOnCuda : public testing::Test {
 protected:
  test::TempDir dir_;
  SmallRun run_{dir_.path(), {"optim.lr=3e-4"}};
};

TEST_F(RunOnCuda, FollowsTheCpuForFiftySteps) {
  const auto device = run_.train("device", 1, on_cuda("f32", {"train.steps=50"}));
  const auto cpu = run_.train("cpu", 1, {"train.steps=50", "precision.compute=f32"});
  for (const char* key : {"loss", "mtp_loss"}) {
    const auto a = column(device, key), b = column(cpu, key);
    ASSERT_EQ(a.size(), 50u);
    for (std::size_t i = 0; i < a.size(); ++i) EXPECT_LE(std::abs(a[i] - b[i]), 1e-4 * b[i]) << key << " at step " << i + 1;
  }
}

TEST_F(RunOnCuda, Bf16StaysWithinHalfAPercentOfF32) {
  const auto narrow = column(run_.train("bf16", 1, on_cuda("bf16", {"train.steps=200"})), "loss");
  const auto wide = column(run_.train("f32", 1, on_cuda("f32", {"train.steps=200"})), "loss");
  ASSERT_EQ(narrow.size(), 200u);
  double a = narrow.front(), b = wide.front();
  for (std::size_t i = 0; i < narrow.size(); ++i) {
    a = 0.9 * a + 0.1 * narrow[i];
    b = 0.9 * b + 0.1 * wide[i];
    EXPECT_LE(std::abs(a - b), 5e-3 * b) << "step " << i + 1;
  }
  EXPECT_LT(b, wide.front());
}

TEST_F(RunOnCuda, ResumesWithTheSameBits) {
  for (const char* precision : {"f32", "bf16"}) {
    const auto settings = on_cuda(precision, {"optim.schedule.decay_steps=17", "optim.moments=bf16"});
    auto first = settings;
    first.push_back("train.steps=7");
    const std::string name = precision;
    const auto straight = run_.train("straight" + name, 1, settings);
    run_.train("stopped" + name, 1, first);
    const auto resumed = run_.train("stopped" + name, 1, settings);
    for (const char* key : {"loss", "mtp_loss", "grad_norm"}) EXPECT_EQ(column(straight, key), column(resumed, key)) << key;
    expect_same_tensors(dir_ / ("straight" + name), dir_ / ("stopped" + name));
  }
}

/// While the rate, the batch, the weight of MTP and the average change from step to step.
TEST_F(RunOnCuda, ARecordedStepHasTheBitsOfAnEagerOne) {
  for (const char* precision : {"f32", "bf16"}) {
    const auto settings = on_cuda(precision, {"train.steps=20", "train.batch_ramp={start: 4, tokens: 768, multiple: 4}",
                                              "balance.mtp_schedule=[{tokens: 2000, value: 0.1}]", "data.validation_fraction=0.1",
                                              "train.eval_interval=3"});
    auto with_graph = settings;
    with_graph.push_back("run.cuda_graph=true");
    const std::string name = precision;
    const auto eager = run_.train("eager " + name, 1, settings), recorded = run_.train("recorded " + name, 1, with_graph);
    ASSERT_EQ(recorded.size(), 20u);
    for (const char* key : {"loss", "mtp_loss", "balance_loss", "grad_norm", "max_vio", "val_loss"}) {
      EXPECT_EQ(column(recorded, key), column(eager, key)) << key;
    }
    expect_same_tensors(dir_ / ("eager " + name), dir_ / ("recorded " + name));
  }
}

/// The same checkpoint in two places.
struct Loaded {
  explicit Loaded(const std::filesystem::path& run)
      : cpu(train::load_model(run, {.device = DeviceChoice::kHost, .compute = ComputeType::kF32, .tokenizer = {}})),
        device(train::load_model(run, {.device = DeviceChoice::kCuda, .compute = ComputeType::kF32, .tokenizer = {}})) {}
  train::LoadedModel cpu, device;
};

TEST_F(RunOnCuda, CheckpointIsTheSameModelOnTheCpu) {
  for (const char* precision : {"f32", "bf16"}) {
    const std::string name = precision;
    run_.train(name, 1, on_cuda(precision));
    const Loaded loaded(dir_ / name);
    const nn::ParameterList a = loaded.device.model->parameters(), b = loaded.cpu.model->parameters();
    Stream stream = stream_of(loaded.device.model->options().device);
    for (std::size_t i = 0; i < a.size(); ++i) {
      const Tensor values = to_host(stream, a[i]->value());
      EXPECT_EQ(std::memcmp(values.view().data, b[i]->value().data, values.bytes()), 0) << a[i]->name();
    }
  }
}

TEST_F(RunOnCuda, GeneratesTheTextOfTheCpu) {
  for (const char* kind : {"mla", "gqa"}) {
    const std::string name = kind;
    run_.train(name, 1, on_cuda("f32", {"model.attention.kind=" + name, "model.attention.head_dim=6", "model.attention.num_kv_heads=1"}));
    const Loaded loaded(dir_ / name);
    const std::vector<std::int32_t> prompt{5, 9, 33, 2, 17};
    for (const bool speculate : {false, true}) {
      infer::GenerateOptions options;
      options.sampling.temperature = 0;
      options.max_tokens = 40;
      options.speculate = speculate;
      const auto text = [&](model::Model& model) {
        return infer::Generator(model).generate(prompt, options, [](std::int32_t) { return true; }).tokens;
      };
      EXPECT_EQ(text(*loaded.device.model), text(*loaded.cpu.model)) << kind << ", speculate " << speculate;
    }
  }
}

TEST_F(RunOnCuda, EvaluatesAndGivesTheLogitsOfTheCpu) {
  run_.train("run", 1, on_cuda("bf16"));
  const Loaded loaded(dir_ / "run");
  Tensor tokens = Tensor::empty({2, 31}, DType::kI32);
  for (std::int64_t i = 0; i < tokens.numel(); ++i) tokens.as<std::int32_t>()[i] = static_cast<std::int32_t>((i * i * 7 + 3) % 64);
  Stream host, stream = stream_of(loaded.device.model->options().device);
  const auto a = loaded.device.model->logits(stream, tokens), b = loaded.cpu.model->logits(host, tokens);
  EXPECT_LT(test::relative_difference(to_host(stream, a.main), b.main), 1e-5);
  for (std::size_t k = 0; k < a.mtp.size(); ++k) {
    EXPECT_TRUE(std::isfinite(test::relative_difference(to_host(stream, a.mtp[k]), b.mtp[k]))) << k;
  }
  comm::SingleCommunicator world;
  const auto sampler = train::sequential_sampler({data::open_token_source((dir_ / "tokens.h5").string())}, 24);
  std::vector<double> losses;
  for (const DeviceChoice device : {DeviceChoice::kCuda, DeviceChoice::kHost}) {
    const train::LoadedRun run = train::load_run(dir_ / "run", world, {.device = device, .compute = ComputeType::kF32, .tokenizer = {}});
    Stream own = stream_of(run.run->options().device);
    losses.push_back(train::evaluate(*run.run, own, *sampler, 2000, 4, nullptr).loss);
  }
  EXPECT_NEAR(losses[0], losses[1], 1e-5 * losses[1]);
}

}  // namespace
}  // namespace hadal
