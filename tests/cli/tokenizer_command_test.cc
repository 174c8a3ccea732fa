// `hadal tokenizer` as a user meets it: files in, exit codes and streams out.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>

#include "core/file.h"
#include "tests/support/temp_dir.h"

namespace hadal {
namespace {

struct Outcome {
  int code = -1;
  std::string out;  // stdout and stderr
};

// `input` reaches the command by a file: shells and pipes would not care for NULs.
Outcome run(const std::string& arguments, const std::filesystem::path& input = "/dev/null") {
  const std::string line = std::string(HADAL_BINARY) + " tokenizer " + arguments + " < " + input.string() + " 2>&1";
  FILE* pipe = ::popen(line.c_str(), "r");
  EXPECT_NE(pipe, nullptr);
  Outcome outcome;
  char buffer[4096];
  for (std::size_t got; (got = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;) outcome.out.append(buffer, got);
  const int status = ::pclose(pipe);
  if (WIFEXITED(status)) outcome.code = WEXITSTATUS(status);
  return outcome;
}

class TokenizerCommand : public testing::Test {
 protected:
  TokenizerCommand() {
    std::string text;
    for (int i = 0; i < 200; ++i)
      text += "The tide goes out and the tide comes in.\nWe'll wait " + std::to_string(i) + " days.\n";
    write_file_atomically(dir_ / "corpus.txt", text);
    const Outcome trained = run("train --quiet --json " + path("figures.json") + " --input " + path("corpus.txt") +
                                " --vocab-size 300 --out " + path("tok"));
    EXPECT_EQ(trained.code, 0) << trained.out;
  }
  std::string path(const std::string& name) const { return (dir_ / name).string(); }

  test::TempDir dir_;
};

TEST_F(TokenizerCommand, TrainWritesBothFilesAndFigures) {
  const auto figures = nlohmann::json::parse(read_file(path("figures.json")));
  EXPECT_EQ(figures["merges"], 38);
  EXPECT_GT(figures["pieces"], 1000);
  EXPECT_GE(figures["seconds"], 0.0);
  const auto config = nlohmann::json::parse(read_file(path("tok/tokenizer_config.json")));
  EXPECT_EQ(config["tokenizer_class"], "PreTrainedTokenizerFast");
  EXPECT_EQ(config["bos_token"], "<|bos|>");
  // As the documents of token files: nothing in front of a text, for any reader of the two files.
  EXPECT_EQ(config["add_bos_token"], false);
  EXPECT_EQ(nlohmann::json::parse(read_file(path("tok/tokenizer.json")))["post_processor"]["type"], "ByteLevel");
  EXPECT_EQ(config["added_tokens_decoder"]["1"]["content"], "<|eos|>");
}

TEST_F(TokenizerCommand, EncodeThenDecodeGivesTheSameBytes) {
  using namespace std::string_literals;
  for (const std::string& text : {"The tide\n\n goes out\r\n\x01\x7f \u6d77\n"s, "no end of line"s, ""s, "\n"s, "a\0b\n"s}) {
    write_file_atomically(dir_ / "in.txt", text);
    const Outcome lines = run("encode --tokenizer " + path("tok"), dir_ / "in.txt");
    ASSERT_EQ(lines.code, 0) << lines.out;
    EXPECT_EQ(std::count(lines.out.begin(), lines.out.end(), '\n'), std::count(text.begin(), text.end(), '\n'));
    write_file_atomically(dir_ / "ids.txt", lines.out);
    EXPECT_EQ(run("decode --tokenizer " + path("tok"), dir_ / "ids.txt").out, text);
    const Outcome whole = run("encode --whole --tokenizer " + path("tok") + " --input " + path("in.txt"));
    write_file_atomically(dir_ / "ids.txt", whole.out);
    EXPECT_EQ(run("decode --whole --tokenizer " + path("tok"), dir_ / "ids.txt").out, text);
  }
}

TEST_F(TokenizerCommand, InvalidBytesAreCounted) {
  write_file_atomically(dir_ / "in.txt", "a\xff\xfe\n");
  const Outcome outcome = run("encode --tokenizer " + path("tok"), dir_ / "in.txt");
  EXPECT_EQ(outcome.code, 0);
  EXPECT_NE(outcome.out.find("2 invalid UTF-8"), std::string::npos) << outcome.out;
}

TEST_F(TokenizerCommand, InspectPrintsBytesPerToken) {
  const Outcome outcome = run("inspect --json - " + path("tok") + " --input " + path("corpus.txt"));
  ASSERT_EQ(outcome.code, 0) << outcome.out;
  const auto figures = nlohmann::json::parse(outcome.out);
  EXPECT_EQ(figures["vocab_size"], 300);
  EXPECT_EQ(figures["pre_tokenizer"], "deepseek-v3");
  EXPECT_GT(figures["bytes_per_token"], 1.0);
  EXPECT_EQ(figures["added_tokens"].size(), 6u);
}

TEST_F(TokenizerCommand, SpecialTokensTakeTheFirstIds) {
  const Outcome outcome = run("train --quiet --input " + path("corpus.txt") +
                              " --vocab-size 270 --special '<s>' '</s>' '<unk>' '<x>' --eos '<x>' --out " + path("own"));
  ASSERT_EQ(outcome.code, 0) << outcome.out;
  const auto figures = nlohmann::json::parse(run("inspect --json - " + path("own")).out);
  EXPECT_EQ(figures["bos_id"], 0);
  EXPECT_EQ(figures["eos_id"], 3);
  EXPECT_EQ(figures["pad_id"], 2);
}

TEST_F(TokenizerCommand, BadInputEndsWithTwoAndTheReason) {
  const auto refused = [](const std::string& arguments, const std::string& reason,
                          const std::filesystem::path& input = "/dev/null") {
    const Outcome outcome = run(arguments, input);
    EXPECT_EQ(outcome.code, 2) << arguments << ": " << outcome.out;
    EXPECT_NE(outcome.out.find(reason), std::string::npos) << outcome.out;
  };
  refused("", "train, encode, decode, inspect");
  refused("train --input " + path("missing.txt") + " --vocab-size 300 --out " + path("x"), "missing.txt");
  refused("train --input " + path("corpus.txt") + " --vocab-size 100 --out " + path("x"), "choose from 262");
  refused("train --input " + path("corpus.txt") + " --vocab-size 300 --pre sentencepiece --out " + path("x"), "--pre");
  refused("encode --tokenizer " + path("missing"), "missing");
  write_file_atomically(dir_ / "ids.txt", "5 6\n7 eight\n");
  refused("decode --tokenizer " + path("tok"), "stdin:2: 'eight' is not a token id", dir_ / "ids.txt");
  write_file_atomically(dir_ / "ids.txt", "5 300\n");
  refused("decode --tokenizer " + path("tok"), "token id 300 is outside the vocabulary of 300", dir_ / "ids.txt");
  refused("encode --tokenizer " + path("tok") + " --input " + path("tok"), "a directory");
  EXPECT_FALSE(std::filesystem::exists(path("x")));
}

TEST_F(TokenizerCommand, HelpTeachesByExample) {
  const Outcome outcome = run("--help");
  EXPECT_EQ(outcome.code, 0);
  EXPECT_NE(outcome.out.find("hadal tokenizer train --input"), std::string::npos);
}

}  // namespace
}  // namespace hadal
