// hadal import, checkpoint and export as scripts see them: figures, exit codes 0, 2, 3, 65 and 66.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "core/file.h"
#include "tests/support/run_program.h"
#include "tests/support/temp_dir.h"

namespace hadal::cli {
namespace {

using test::ProgramResult;
using test::run_hadal;

const std::string kFixtures = std::string(HADAL_SOURCE_DIR) + "/tests/parity/fixtures/";

nlohmann::json figures_of(const std::string& line) {
  const ProgramResult result = run_hadal(line + " --json -");
  return nlohmann::json::parse(result.out);
}

void flip_bit(const std::filesystem::path& path, std::streamoff at) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(at);
  const char byte = static_cast<char>(file.get());
  file.seekp(at);
  file.put(static_cast<char>(byte ^ 1));
}

class CheckpointCommand : public testing::Test {
 protected:
  void SetUp() override {
    const ProgramResult result = run_hadal("import " + kFixtures + "v3_groups --out " + run_);
    ASSERT_EQ(result.exit_code, 0) << result.err;
  }
  const test::TempDir dir_;
  const std::string run_ = (dir_ / "run").string();
  const std::filesystem::path step_ = dir_ / "run" / "checkpoints" / "step-0";
};

// A dense layer of 12 tensors, two with 8 experts of 38, embedding, norm and head: 91.
TEST_F(CheckpointCommand, InspectTellsEveryTensor) {
  const nlohmann::json figures = figures_of("checkpoint inspect " + run_);
  EXPECT_EQ(figures["step"], 0);
  EXPECT_EQ(figures["tensors"].size(), 91u);
  EXPECT_EQ(figures["tensors"][0]["name"], "lm_head.weight");
  EXPECT_EQ(figures["tensors"][0]["shape"], nlohmann::json({96, 32}));
  EXPECT_EQ(figures["tensors"][0]["dtype"], "f32");
  EXPECT_EQ(figures["tensors"][0]["hash"].get<std::string>().size(), 32u);
  EXPECT_EQ(figures["tensors"][0]["pieces"][0]["file"], "shard-00000.h5");
  EXPECT_EQ(figures["tensors"][0]["pieces"][0]["extent"], nlohmann::json({96, 32}));
  EXPECT_EQ(figures["files"].size(), 1u);
  EXPECT_EQ(figures["files"][0]["bytes"], std::filesystem::file_size(step_ / "shard-00000.h5"));
  const ProgramResult text = run_hadal("checkpoint inspect --pieces " + run_);
  EXPECT_NE(text.out.find("shard-00000.h5  " + std::to_string(std::filesystem::file_size(step_ / "shard-00000.h5")) + " bytes"),
            std::string::npos)
      << text.out;
  EXPECT_NE(text.out.find("  f32   [96, 32]         lm_head.weight\n    shard-00000.h5 at "), std::string::npos) << text.out;
  EXPECT_NE(text.out.find(": [0:96, 0:32]\n"), std::string::npos) << text.out;
}

TEST_F(CheckpointCommand, ReshardKeepsEveryTensor) {
  const std::string out = (dir_ / "resharded").string();
  const nlohmann::json figures = figures_of("checkpoint reshard " + run_ + " --shards 5 --out " + out);
  EXPECT_EQ(figures["files"], 5);
  EXPECT_EQ(figures["files_before"], 1);
  EXPECT_EQ(figures["tensors"], 91);
  EXPECT_TRUE(std::filesystem::exists(dir_ / "resharded" / "step-0" / "shard-00004.h5"));
  EXPECT_EQ(run_hadal("checkpoint verify " + out).exit_code, 0);
  const ProgramResult diff = run_hadal("checkpoint diff " + run_ + " " + out);
  EXPECT_EQ(diff.exit_code, 0) << diff.out;
  EXPECT_EQ(run_hadal("checkpoint reshard " + out + " --shard-bytes 16KiB --out " + out + "2").exit_code, 0);
  EXPECT_EQ(run_hadal("checkpoint diff " + run_ + " " + out + "2").exit_code, 0);

  const ProgramResult again = run_hadal("checkpoint reshard " + run_ + " --out " + out);
  EXPECT_EQ(again.exit_code, 2) << "never overwrites";
  EXPECT_NE(again.err.find("never overwritten"), std::string::npos) << again.err;
  EXPECT_EQ(run_hadal("checkpoint reshard " + run_ + " --shards 100000 --out " + out + "3").exit_code, 2);
  EXPECT_EQ(run_hadal("checkpoint reshard " + run_ + " --shards 2 --shard-bytes 1MiB --out " + out + "3").exit_code, 2);
  EXPECT_EQ(run_hadal("checkpoint reshard " + run_ + " --shard-bytes 2GiB --out " + out + "3").exit_code, 2);
  EXPECT_EQ(run_hadal("checkpoint reshard " + run_).exit_code, 2) << "--out is required";
  flip_bit(step_ / "shard-00000.h5", 70000);
  EXPECT_EQ(run_hadal("checkpoint reshard " + run_ + " --shards 2 --out " + out + "3").exit_code, 65);
  EXPECT_TRUE(!std::filesystem::exists(out + "3") || std::filesystem::is_empty(out + "3"));
}

TEST_F(CheckpointCommand, VerifyAndDiffAnswerByExitCode) {
  ProgramResult result = run_hadal("checkpoint verify " + run_);
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_NE(result.err.find("step-0"), std::string::npos) << "the chosen step is named on stderr";
  EXPECT_EQ(run_hadal("checkpoint diff " + run_ + " " + step_.string()).exit_code, 0);
  const std::string other = (dir_ / "other").string();
  ASSERT_EQ(run_hadal("import " + kFixtures + "v3_yarn_old_config --out " + other).exit_code, 0);
  result = run_hadal("checkpoint diff " + run_ + " " + other);
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_NE(result.out.find("model.norm.weight: differs by up to"), std::string::npos) << result.out;
  EXPECT_NE(result.out.find("model.layers.0.self_attn.q_proj.weight: only in the second"), std::string::npos);

  flip_bit(step_ / "shard-00000.h5", 70000);
  result = run_hadal("checkpoint verify " + run_);
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_NE(result.out.find("shard-00000.h5: block 0"), std::string::npos) << result.out;
  EXPECT_EQ(run_hadal("export " + run_ + " --out " + (dir_ / "hf").string()).exit_code, 65);
  EXPECT_FALSE(std::filesystem::exists(dir_ / "hf"));
  flip_bit(step_ / "manifest.json", 500);
  EXPECT_EQ(run_hadal("checkpoint verify " + run_).exit_code, 3);
  EXPECT_EQ(run_hadal("checkpoint inspect " + run_).exit_code, 65);
}

TEST_F(CheckpointCommand, NothingUsableIsExitCode66) {
  EXPECT_EQ(run_hadal("checkpoint inspect " + (dir_ / "absent").string()).exit_code, 66);
  std::filesystem::remove(step_ / "COMMIT");
  const ProgramResult result = run_hadal("export " + run_ + " --out " + (dir_ / "hf").string());
  EXPECT_EQ(result.exit_code, 66);
  EXPECT_NE(result.err.find("no complete checkpoint"), std::string::npos) << result.err;
}

TEST_F(CheckpointCommand, ExportTellsTensorsBytesAndEngines) {
  const std::string out = (dir_ / "hf").string();
  ProgramResult result = run_hadal("export " + run_ + " --out " + out + " --json -");
  EXPECT_EQ(result.exit_code, 0) << result.err;
  const nlohmann::json figures = nlohmann::json::parse(result.out);
  EXPECT_EQ(figures["tensors"], 91);
  EXPECT_GT(figures["bytes"], 100000);
  for (const char* engine : {"transformers: yes", "vllm: ", "sglang: ", "llama.cpp: "}) {
    EXPECT_NE(result.err.find(engine), std::string::npos) << engine;
  }
  result = run_hadal("export " + run_ + " --out " + out);
  EXPECT_EQ(result.exit_code, 2) << "never overwrites";
  EXPECT_EQ(run_hadal("export " + run_ + " --dtype f16 --out " + out + "2").exit_code, 2);
  EXPECT_EQ(run_hadal("import " + kFixtures + "v3_groups --out " + run_).exit_code, 2) << "never overwrites";
  EXPECT_EQ(run_hadal("import " + dir_.path().string() + " --out " + out + "3").exit_code, 2) << "no model there";
}

}  // namespace
}  // namespace hadal::cli
