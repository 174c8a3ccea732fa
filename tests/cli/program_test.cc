// The program as scripts see it: exit codes, what goes to stdout and what to stderr, help everywhere.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "cli/commands.h"
#include "config/load.h"
#include "core/file.h"
#include "tests/support/run_program.h"
#include "tests/support/temp_dir.h"

namespace hadal::cli {
namespace {

using test::ProgramResult;
using test::run_hadal;

const std::string kQuickstart = std::string(HADAL_SOURCE_DIR) + "/configs/run/quickstart.yaml";

void expect_contains(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << "wanted: " << part << "\nin: " << text;
}

TEST(Program, HelpAndVersionAnswerEverywhereOnStdout) {
  for (const char* line : {"", "help", "--help", "-h"}) {
    const ProgramResult result = run_hadal(line);
    EXPECT_EQ(result.exit_code, 0) << line;
    EXPECT_EQ(result.err, "") << line;
    for (const Command& command : commands()) expect_contains(result.out, std::string(command.verb));
  }
  for (const char* line : {"--version", "version", "doctor --version", "config --version", "config show --version"}) {
    const ProgramResult result = run_hadal(line);
    EXPECT_EQ(result.exit_code, 0) << line;
    EXPECT_EQ(result.out, version_text() + "\n") << line;
  }
}

TEST(Program, EveryVerbHelpsByExample) {
  for (const Command& command : commands()) {
    const std::string verb(command.verb);
    EXPECT_FALSE(command.summary.empty()) << verb;
    EXPECT_LE(command.summary.size(), 80u) << verb;
    for (const std::string& line : {verb + " --help", "help " + verb}) {
      const ProgramResult result = run_hadal(line);
      EXPECT_EQ(result.exit_code, 0) << line << result.err;
      expect_contains(result.out, "Usage: hadal " + verb);
      expect_contains(result.out, "Examples:\n");
    }
  }
}

// No MPI for help: a launcher that announces ranks nobody connects must not matter.
TEST(Program, HelpStartsNoMpi) {
  const ProgramResult result = run_hadal("doctor --help", "OMPI_COMM_WORLD_SIZE=4 OMPI_COMM_WORLD_RANK=0");
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_EQ(result.err, "");
}

TEST(Program, WrongWordsAreExitCode2WithTheNearestSpelling) {
  struct Case {
    const char* line;
    const char* message;
  };
  for (const Case& wrong :
       {Case{"doctr", "there is no such verb (did you mean doctor?)"},
        Case{"help confg", "there is no such verb (did you mean config?)"},
        Case{"doctor --jsn x", "--jsn (did you mean --json?)"},
        Case{"config", "a word is missing; allowed: show, explain, schema"},
        Case{"config shwo x", "there is no shwo (did you mean show?)"}, Case{"config show", "CONFIG is required"},
        Case{"config show x.yaml --optim.lr=3", "config overrides are bare: optim.lr=3"},
        Case{"config show /nonexistent.yaml", "/nonexistent.yaml: cannot be read: No such file or directory"},
        Case{"config show /tmp", "/tmp: not a regular file"},
        Case{"config explain optim.lrr", "optim.lrr: there is no such key (did you mean lr?)"}}) {
    const ProgramResult result = run_hadal(wrong.line);
    EXPECT_EQ(result.exit_code, 2) << wrong.line;
    EXPECT_EQ(result.out, "") << wrong.line;
    EXPECT_TRUE(result.err.starts_with("error: ")) << result.err;
    expect_contains(result.err, wrong.message);
  }
}

TEST(Program, ConfigErrorsNameFileLineAndColumn) {
  const test::TempDir dir;
  write_file_atomically(dir / "bad.yaml", "optim:\n  lr: fast\n");
  const ProgramResult result = run_hadal("config show " + (dir / "bad.yaml").string());
  EXPECT_EQ(result.exit_code, 2);
  expect_contains(result.err, (dir / "bad.yaml").string() + ":2:7: optim.lr: fast is not a number");
}

TEST(Program, ConfigShowPrintsAConfigThatLoads) {
  const ProgramResult plain = run_hadal("config show " + kQuickstart + " optim.lr=0.125");
  EXPECT_EQ(plain.exit_code, 0);
  EXPECT_EQ(plain.err, "");
  EXPECT_EQ(load_config_text(plain.out, "out").config.optim.lr, 0.125);
  const ProgramResult told = run_hadal("config show --provenance " + kQuickstart + " optim.lr=0.125");
  EXPECT_EQ(load_config_text(told.out, "out").config.optim.lr, 0.125);
  expect_contains(told.out, "# command line: optim.lr=0.125");
  expect_contains(told.out, "model/tiny.yaml:");
  const ProgramResult json = run_hadal("config show --json - " + kQuickstart);
  EXPECT_EQ(nlohmann::json::parse(json.out)["model"]["attention"]["sparse"], "nsa");
}

TEST(Program, InertKeysAreMarkedAndWarnedOf) {
  const ProgramResult result = run_hadal("config show --quiet " + kQuickstart + " model.attention.sparse=none");
  EXPECT_EQ(result.exit_code, 0);
  expect_contains(result.out, "# inert: model.attention.sparse is none");
  expect_contains(result.err, "warning: no effect, since model.attention.sparse is none: model.attention.nsa.block_length (");
}

TEST(Program, DoctorFiguresAndExitCode) {
  const ProgramResult result = run_hadal("doctor --json -");
  EXPECT_EQ(result.exit_code, 0) << result.out;
  const nlohmann::json checks = nlohmann::json::parse(result.out)["checks"];
  EXPECT_GE(checks.size(), 8u);
  for (const nlohmann::json& check : checks) {
    EXPECT_TRUE(check["name"].is_string() && check["ok"].is_boolean() && check["found"].is_string() && check["fix"].is_string());
  }
  // The singleton trap: ranks announced, none connected.
  const ProgramResult trapped = run_hadal("doctor", "OMPI_COMM_WORLD_SIZE=4 OMPI_COMM_WORLD_RANK=0");
  EXPECT_EQ(trapped.exit_code, 3);
  expect_contains(trapped.out, "MISSING  mpi");
}

TEST(Program, FullDiskOnStdoutIsAnIoError) {
  const ProgramResult result = run_hadal("config schema >/dev/full; code=$?; test $code = 74 && exit 0; exit $code");
  EXPECT_EQ(result.exit_code, 0) << result.err;
}

}  // namespace
}  // namespace hadal::cli
