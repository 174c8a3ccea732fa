// `hadal data` as a user meets it: text to a token file, what is in it, and the batches of a run.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "core/file.h"
#include "data/open_source.h"
#include "interop/safetensors.h"
#include "tests/support/temp_dir.h"
#include "tokenizer/tokenizer.h"

namespace hadal {
namespace {

struct Outcome {
  int code = -1;
  std::string out;  // stdout and stderr
};

Outcome run(const std::string& arguments) {
  const std::string line = std::string(HADAL_BINARY) + " " + arguments + " 2>&1 < /dev/null";
  FILE* pipe = ::popen(line.c_str(), "r");
  EXPECT_NE(pipe, nullptr);
  Outcome outcome;
  char buffer[4096];
  for (std::size_t got; (got = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;) outcome.out.append(buffer, got);
  const int status = ::pclose(pipe);
  if (WIFEXITED(status)) outcome.code = WEXITSTATUS(status);
  return outcome;
}

class DataCommand : public testing::Test {
 protected:
  DataCommand() {
    std::string text;
    for (int i = 0; i < 600; ++i)
      text += "The tide goes out and the tide comes in.\nWe'll wait " + std::to_string(i) + " days.\n";
    write_file_atomically(dir_ / "corpus.txt", text);
    run_ok("tokenizer train --quiet --input " + path("corpus.txt") +
           " --vocab-size 300 --special '<|fim_begin|>' '<|fim_hole|>' '<|fim_end|>' --out " + path("tok"));
  }
  std::string path(const std::string& name) const { return (dir_ / name).string(); }
  void run_ok(const std::string& arguments) {
    const Outcome outcome = run(arguments);
    ASSERT_EQ(outcome.code, 0) << arguments << "\n" << outcome.out;
  }
  std::string build(const std::string& more) const {
    return "data build --input " + path("corpus.txt") + " --tokenizer " + path("tok") + " " + more;
  }

  test::TempDir dir_;
};

TEST_F(DataCommand, BuildsAndInspects) {
  run_ok(build("--out " + path("a.h5") + " --megatron " + path("pair") + " --documents 1KiB --json " + path("figures.json")));
  const auto figures = nlohmann::json::parse(read_file(path("figures.json")));
  EXPECT_EQ(figures["bytes"], std::filesystem::file_size(path("corpus.txt")));
  EXPECT_GT(figures["documents"], 30);
  for (const char* name : {"tokens", "seconds", "peak_bytes"}) EXPECT_GT(figures[name], 0) << name;

  for (const char* name : {"a.h5", "pair", "pair.idx"}) {
    run_ok("data inspect " + path(name) + " --quiet --json " + path("inspect.json"));
    const auto inspected = nlohmann::json::parse(read_file(path("inspect.json")));
    EXPECT_EQ(inspected["tokens"], figures["tokens"]);
    EXPECT_EQ(inspected["documents"], figures["documents"]);
    EXPECT_EQ(inspected["dtype"], "u16");
    EXPECT_LT(inspected["max_id"], 300);
  }
  const Outcome shown = run("data inspect " + path("a.h5") + " --show 1");
  EXPECT_NE(shown.out.find("The tide goes out and the tide comes in.\nWe'll wait 0 days."), std::string::npos) << shown.out;

  // The documents' tokens decode to the text, whole.
  const auto source = data::open_token_source(path("a.h5"));
  const auto tokenizer = tokenizer::Tokenizer::load(path("tok"));
  std::vector<std::int32_t> ids(source->num_tokens());
  source->read(0, ids);
  std::erase(ids, tokenizer.eos_id());
  EXPECT_EQ(tokenizer.decode(ids), read_file(path("corpus.txt")));
}

TEST_F(DataCommand, ExitCodesSayWhatWasWrong) {
  EXPECT_EQ(run(build("")).code, 2);
  EXPECT_EQ(run(build("--out " + path("a.h5") + " --documents pages")).code, 2);
  run_ok(build("--out " + path("a.h5")));
  EXPECT_EQ(run(build("--out " + path("a.h5"))).code, 2);
  run_ok(build("--out " + path("a.h5") + " --overwrite"));
  EXPECT_EQ(run("data inspect " + path("none.h5")).code, 2);
  EXPECT_EQ(run("data inspect " + path("corpus.txt")).code, 2);
  const std::byte junk{0x5a};
  File::open_read_write(path("a.h5")).write_at(70000, std::span(&junk, 1));
  const Outcome damaged = run("data inspect " + path("a.h5"));
  EXPECT_EQ(damaged.code, 65);
  EXPECT_NE(damaged.out.find("a.h5: tokens block 0"), std::string::npos) << damaged.out;
}

TEST_F(DataCommand, ALongLineStaysWithinMemory) {
  std::string line = "{\"text\":\"";
  while (line.size() < (std::size_t{60} << 20)) line += "The tide goes out and the tide comes in. ";
  write_file_atomically(path("long.jsonl"), line + "\"}\n");
  run_ok("data build --input " + path("long.jsonl") + " --tokenizer " + path("tok") + " --out " + path("long.h5") + " --json " +
         path("figures.json"));
  const auto figures = nlohmann::json::parse(read_file(path("figures.json")));
  EXPECT_EQ(figures["documents"], 1);
  if (std::string_view(HADAL_SANITIZE) == "thread") GTEST_SKIP() << "ThreadSanitizer's own memory would be counted";
  EXPECT_LT(figures["peak_bytes"], std::uint64_t{1} << 30);
}

TEST_F(DataCommand, BatchesAreThoseOfTheRun) {
  run_ok(build("--out " + path("a.h5") + " --documents 1KiB"));
  write_file_atomically(path("run.yaml"),
                        "data:\n  tokenizer: " + path("tok") +
                            "\n  sequence_length: 16\n  fim_rate: 0.1\n  sources:\n    - path: " + path("a.h5") +
                            "\ntrain:\n  global_batch: 4\n  micro_batch: 4\nmodel:\n  vocab_size: 300\n");
  run_ok("data batches " + path("run.yaml") + " --steps 3 --out " + path("b.safetensors"));
  run_ok("data batches " + path("run.yaml") + " --first-step 2 --steps 1 --out " + path("last.safetensors"));
  const auto all = interop::SafetensorsReader::open(path("b.safetensors"));
  const Tensor tokens = all.read("tokens");
  const Tensor targets = all.read("targets");
  EXPECT_EQ(tokens.shape(), (Shape{3, 4, 16}));
  EXPECT_EQ(tokens.dtype(), DType::kI32);
  EXPECT_EQ(all.read("loss_mask").dtype(), DType::kU8);
  for (const char* name : {"targets", "loss_mask", "positions", "document_ids"})
    EXPECT_EQ(all.at(name).shape, tokens.shape()) << name;
  for (std::size_t i = 0; i + 1 < 16; ++i) EXPECT_EQ(tokens.span<std::int32_t>()[i + 1], targets.span<std::int32_t>()[i]);
  const Tensor last = interop::SafetensorsReader::open(path("last.safetensors")).read("tokens");
  EXPECT_TRUE(std::equal(last.span<std::int32_t>().begin(), last.span<std::int32_t>().end(),
                         tokens.span<std::int32_t>().begin() + 2 * 64));
  EXPECT_EQ(run("data batches " + path("run.yaml") + " train.batch_ramp.start=1 train.batch_ramp.tokens=1000 --steps 3 --out " +
                path("c"))
                .code,
            2);
}

}  // namespace
}  // namespace hadal
