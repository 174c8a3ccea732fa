// Guards: training on a device computes what the CPU computes, and host code touches nothing that lies there (tests/support/fake_cuda.h):
// f32 has the CPU's bits, bf16 stays close to f32; runs resume with the same bits; checkpoints are the same logical tensors.
#include <gtest/gtest.h>

#include <cmath>

#include "checkpoint/checkpoint_reader.h"
#include "checkpoint/store.h"
#include "core/allocator.h"
#include "tests/support/fake_cuda.h"
#include "tests/support/small_run.h"
#include "tests/support/temp_dir.h"

namespace hadal {
namespace {

using test::column;
using test::SmallRun;

const std::vector<std::string> kOnCpu{"precision.compute=f32"};
const std::vector<std::string> kOnDevice{"precision.compute=f32", "run.device=cuda"};
const std::vector<std::string> kBf16{"precision.compute=bf16", "run.device=cuda"};

std::vector<std::string> with(std::vector<std::string> overrides, const std::vector<std::string>& more) {
  overrides.insert(overrides.end(), more.begin(), more.end());
  return overrides;
}

void expect_same_rows(const std::vector<report::MetricsRow>& a, const std::vector<report::MetricsRow>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (const char* key : {"loss", "mtp_loss", "balance_loss", "grad_norm", "max_vio"}) EXPECT_EQ(column(a, key), column(b, key)) << key;
  for (const char* key : {"val_loss", "val_mtp_acceptance"}) EXPECT_EQ(a.back().number(key), b.back().number(key)) << key;
}

/// Every tensor of two checkpoints, by content hash.
void expect_same_tensors(const std::filesystem::path& a, const std::filesystem::path& b) {
  const auto x = checkpoint::CheckpointReader::open(checkpoint::find_checkpoint(a)),
             y = checkpoint::CheckpointReader::open(checkpoint::find_checkpoint(b));
  ASSERT_EQ(x.tensors().size(), y.tensors().size());
  for (std::size_t i = 0; i < x.tensors().size(); ++i) {
    EXPECT_EQ(x.tensors()[i].name, y.tensors()[i].name);
    EXPECT_EQ(x.tensors()[i].dtype, y.tensors()[i].dtype) << x.tensors()[i].name;
    EXPECT_EQ(x.tensors()[i].hash, y.tensors()[i].hash) << x.tensors()[i].name;
  }
}

class OnDevice : public testing::Test {
 protected:
  test::TempDir dir_;
  SmallRun run_{dir_.path(), {"data.validation_fraction=0.1", "train.eval_interval=10"}};
};

TEST_F(OnDevice, TrainsWithTheBitsOfTheCpu) {
  for (const char* attention : {"mla", "gqa"}) {
    for (const char* sparse : {"nsa", "none"}) {
      const std::string name = std::string(attention) + sparse;
      const std::vector<std::string> model{std::string("model.attention.kind=") + attention, std::string("model.attention.sparse=") + sparse,
                                           "model.attention.head_dim=6", "model.attention.num_kv_heads=1", "model.attention.dense_layers=[]"};
      expect_same_rows(run_.train("device " + name, 1, with(kOnDevice, model)), run_.train("cpu " + name, 1, with(kOnCpu, model)));
      expect_same_tensors(dir_.path() / ("device " + name), dir_.path() / ("cpu " + name));
    }
  }
  EXPECT_GT(memory_stats(test::kFakeCuda).peak_bytes, 0u);
}

TEST_F(OnDevice, ResumesWithTheSameBits) {
  for (const auto& precision : {kOnDevice, kBf16}) {
    const std::string name = precision.front();
    const auto settings = with(precision, {"optim.moments=bf16", "optim.schedule.decay_steps=17"});
    const auto whole = run_.train("whole " + name, 1, settings);
    run_.train("parts " + name, 1, with(settings, {"train.steps=7"}));
    expect_same_rows(run_.train("parts " + name, 1, settings), whole);
    expect_same_tensors(dir_.path() / ("parts " + name), dir_.path() / ("whole " + name));
  }
}

TEST_F(OnDevice, Bf16StaysCloseToF32) {
  const std::vector<std::string> rate{"optim.lr=3e-4", "train.steps=60"};
  const auto narrow = column(run_.train("narrow", 1, with(kBf16, rate)), "loss"), wide = column(run_.train("wide", 1, with(kOnDevice, rate)), "loss");
  double a = narrow.front(), b = wide.front();
  EXPECT_NE(narrow.front(), wide.front());
  for (std::size_t i = 0; i < narrow.size(); ++i) {
    a = 0.9 * a + 0.1 * narrow[i];
    b = 0.9 * b + 0.1 * wide[i];
    EXPECT_LE(std::abs(a - b), 5e-3 * b) << "step " << i + 1;
  }
}

/// The figures of a step are four copies at its end: losses, loads, balance losses, the norm. What travels between ranks is not counted.
TEST_F(OnDevice, AStepWaitsForItsFiguresAlone) {
  const auto waits = [&](int ranks, const std::vector<std::string>& layout, const char* steps) {
    const std::int64_t before = test::num_host_waits();
    const auto settings = with(layout, {std::string("train.steps=") + steps, "optim.schedule.decay_steps=17", "parallel.device_transport=nccl"});
    run_.train("waits" + testing::PrintToString(layout) + steps, ranks, with(kBf16, settings));
    return test::num_host_waits() - before;
  };
  waits(1, {"parallel.tp=1"}, "1");  // the first run of a process measures the device's peak
  for (const std::vector<std::string>& layout : std::vector<std::vector<std::string>>{
           {"parallel.tp=1"},
           {"parallel.tp=2"},
           {"parallel.cp=2"},
           {"parallel.pp=2"},
           {"parallel.pp=2", "parallel.schedule=dualpipe_v", "train.micro_batch=1"}}) {
    const int ranks = layout.front().back() - '0';
    const std::int64_t three = waits(ranks, layout, "3"), eight = waits(ranks, layout, "8");
    EXPECT_EQ(eight - three, 5 * 4 * ranks) << testing::PrintToString(layout);
  }
}

/// Two ranks whose device memory travels from device to device: four waits each. Exact counts are planned on the host, layer by layer.
TEST_F(OnDevice, ExpertsWithRoomDoNotMakeTheHostWait) {
  const auto waits_of_a_step = [&](const std::string& capacity) {
    const auto waits = [&](const std::string& steps) {
      const std::int64_t before = test::num_host_waits();
      run_.train("waits " + capacity + " " + steps, 2, with(kBf16, {"train.steps=" + steps, "optim.schedule.decay_steps=17", "parallel.ep=2",
                                                                 "parallel.device_transport=nccl", "parallel.expert_capacity=" + capacity}));
      return test::num_host_waits() - before;
    };
    waits("1");
    const std::int64_t three = waits("3"), eight = waits("8");
    EXPECT_EQ((eight - three) % 5, 0);
    return (eight - three) / 5;
  };
  EXPECT_EQ(waits_of_a_step("64"), 2 * 4);
  // Experts and weights of three layers with experts (one of the model, two MTP modules), two micro-batches on two ranks.
  EXPECT_EQ(waits_of_a_step("0"), 2 * 4 + 2 * 3 * 2 * 2);
}

/// tests/cuda/train_test.cc compares the bits.
TEST_F(OnDevice, AStepIsRecordedOncePerShape) {
  const std::int64_t before = test::num_graph_launches();
  run_.train("recorded", 1, with(kOnDevice, {"run.cuda_graph=true", "train.steps=20", "train.batch_ramp={start: 4, tokens: 768, multiple: 4}",
                                             "balance.mtp_schedule=[{tokens: 2000, value: 0.1}]"}));
  EXPECT_EQ(test::num_graph_launches() - before, 20 - 3);  // of each of three kinds of step the first runs as it comes
}

TEST_F(OnDevice, OneRankAloneIsRecorded) {
  EXPECT_THROW(run_.train("two", 2, with(kOnDevice, {"run.cuda_graph=true"})), UserError);
}

/// Every axis: rows, choices, sums and states travel between ranks that share the device.
TEST_F(OnDevice, RanksTrainWithTheBitsOfTheCpu) {
  const std::vector<std::vector<std::string>> layouts{{"parallel.tp=2"},
                                                      {"parallel.cp=2"},
                                                      {"parallel.ep=2"},
                                                      {"parallel.pp=2"},
                                                      {"parallel.pp=2", "parallel.schedule=dualpipe_v", "train.micro_batch=1"},
                                                      {"parallel.tp=2", "parallel.ep=2", "parallel.etp=2"},
                                                      {"parallel.tp=2", "parallel.ep=4", "parallel.ranks_per_node=2"},
                                                      {"parallel.ep=4", "parallel.expert_capacity=1"}};
  for (const std::vector<std::string>& layout : layouts) {
    std::string name;
    for (const std::string& key : layout) name += key.substr(key.find('.') + 1);
    const auto settings = with(layout, {"train.steps=4", "train.eval_interval=4", "parallel.device_transport=host"});
    expect_same_rows(run_.train("device " + name, 4, with(kOnDevice, settings)), run_.train("cpu " + name, 4, with(kOnCpu, settings)));
    expect_same_tensors(dir_.path() / ("device " + name), dir_.path() / ("cpu " + name));
    EXPECT_EQ(run_.train("bf16 " + name, 4, with(kBf16, settings)).size(), 4u) << name;
  }
}

/// A bf16 run saves its masters: f32 tensors, that the bf16 values are rounded from wherever they are loaded.
TEST_F(OnDevice, ABf16RunGoesOnInF32) {
  const auto settings = with(kBf16, {"optim.schedule.decay_steps=17"});
  run_.train("run", 1, with(settings, {"train.steps=7"}));
  const auto reader = checkpoint::CheckpointReader::open(checkpoint::find_checkpoint(dir_.path() / "run"));
  for (const checkpoint::StoredTensor& tensor : reader.tensors()) EXPECT_EQ(tensor.dtype, DType::kF32) << tensor.name;
  const auto on_device = run_.train("run", 1, with(kOnDevice, {"optim.schedule.decay_steps=17", "train.steps=9"}));
  const auto on_cpu = run_.train("run", 1, with(kOnCpu, {"optim.schedule.decay_steps=17", "train.steps=12"}));
  ASSERT_EQ(on_cpu.size(), 12u);
  EXPECT_LT(column(on_cpu, "loss").back(), column(on_cpu, "loss").front());
}

}  // namespace
}  // namespace hadal
