// Guards: what ranks save together is whole or absent: a rank that fails, dies or finds a full disk, a shard that changes, slices
// that do not tile; and every rank is told the same.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <numeric>

#include "checkpoint/checkpoint_reader.h"
#include "checkpoint/checkpoint_writer.h"
#include "checkpoint/parameters.h"
#include "checkpoint/store.h"
#include "comm/local/local_group.h"
#include "core/error.h"
#include "core/file.h"
#include "core/parallel_for.h"
#include "tests/checkpoint/layouts.h"
#include "tests/support/temp_dir.h"

namespace hadal::checkpoint {
namespace {

namespace fs = std::filesystem;
using comm::Communicator;
using comm::run_local_group;
using test_layouts::Layout;
using test_layouts::RankModel;
using test_layouts::save_model;

/// Error messages of all ranks; "" of those that threw none.
std::vector<std::string> messages(int ranks, const std::function<void(Communicator&)>& body) {
  std::vector<std::string> told(static_cast<std::size_t>(ranks));
  run_local_group(ranks, [&](Communicator& world) {
    try {
      body(world);
    } catch (const Error& error) {
      told[static_cast<std::size_t>(world.rank())] = error.what();
    }
  });
  return told;
}

void expect_all(const std::vector<std::string>& told, const std::string& part) {
  for (const std::string& message : told) {
    EXPECT_EQ(message, told[0]);
    EXPECT_NE(message.find(part), std::string::npos) << message;
  }
}

TEST(RankFaults, WrongTilingsAreBugsThatNameTheTensor) {
  const test::TempDir dir;
  const Tensor half = Tensor::zeros(Shape{2, 3}, DType::kF32);
  const auto save = [&](Communicator& world, std::int64_t begin_of_one, DType dtype) {
    CheckpointWriter writer(dir.path(), 1, world);
    const Tensor mine = Tensor::zeros(Shape{2, 3}, world.is_root() ? DType::kF32 : dtype);
    writer.add_slice({"a.weight", Shape{4, 3}, {{world.is_root() ? 0 : begin_of_one, 0}, {2, 3}}}, mine);
    writer.commit();
  };
  expect_all(messages(2, [&](Communicator& world) { save(world, 1, DType::kF32); }),
             "a.weight [4, 3]: slices [0:2, 0:3] and [1:3, 0:3] overlap");
  expect_all(messages(2,
                      [&](Communicator& world) {
                        CheckpointWriter writer(dir.path(), 1, world);
                        if (world.is_root()) writer.add_slice({"a.weight", Shape{4, 3}, {{0, 0}, {2, 3}}}, half);
                        writer.commit();
                      }),
             "a.weight [4, 3]: slices hold 6 of 12 elements");
  expect_all(messages(2, [&](Communicator& world) { save(world, 2, DType::kF64); }),
             "a.weight: f32 [4, 3] on one rank, f64 [4, 3] on another");
  EXPECT_TRUE(fs::is_empty(dir.path()));
  EXPECT_NO_THROW(run_local_group(2, [&](Communicator& world) { save(world, 2, DType::kF32); }));
}

TEST(RankFaults, WhatDoesNotFitIsToldAlikeByAllRanks) {
  const test::TempDir dir;
  run_local_group(2, [&](Communicator& world) { save_model({.pp = 2}, world, dir.path(), 1); });
  expect_all(messages(2,
                      [&](Communicator& world) {
                        RankModel model({.pp = 2}, world.rank());
                        auto values = model.all();
                        nn::Parameter absent("absent.weight", Shape{2}, DType::kF32, {});
                        if (world.rank() == 0) values.erase(values.begin());
                        if (world.rank() == 1) values.push_back({&absent, absent.value()});
                        load_values(CheckpointReader::open(dir / "step-1", world), values, "", {}, world);
                      }),
             "does not fit this model:\n  missing: absent.weight [2]\n  extra: model.embed_tokens.weight [48, 12]");
}

// Flipped and cut shards of any rank: every rank refuses, with the file's name; the older step is taken together.
TEST(RankFaults, DamageIsToldAlikeByAllRanks) {
  const test::TempDir dir;
  const Layout layout{.dp = 2, .tp = 2, .ep = 2};
  for (const std::int64_t step : {1, 2}) {
    run_local_group(4, [&](Communicator& world) { save_model(layout, world, dir.path(), step); });
  }
  const fs::path step = dir / "step-2";
  for (const auto& entry : fs::directory_iterator(step)) {
    const std::string good = read_file(entry.path()), name = entry.path().filename().string();
    std::string bad = good;
    bad[good.size() / 2] = static_cast<char>(bad[good.size() / 2] ^ 1);
    for (const std::string& contents : {bad, good.substr(0, good.size() - 1)}) {
      std::ofstream(entry.path(), std::ios::binary | std::ios::trunc) << contents;
      expect_all(messages(3, [&](Communicator& world) { CheckpointReader::open(step, world); }), name);
    }
    std::ofstream(entry.path(), std::ios::binary | std::ios::trunc) << good;
  }
  // A read of what was opened unverified is verified too.
  std::string bytes = read_file(step / "shard-00002-00000.h5");
  std::ranges::fill(bytes.begin() + 4096, bytes.begin() + 8192, '\0');
  std::ofstream(step / "shard-00002-00000.h5", std::ios::binary | std::ios::trunc) << bytes;
  expect_all(messages(4,
                      [&](Communicator& world) {
                        RankModel model(layout, world.rank());
                        const CheckpointReader reader = CheckpointReader::open(step, world, Check::kManifest);
                        load_values(reader, model.all(), "", {}, world);
                      }),
             "shard-00002-00000.h5: block 0");
  run_local_group(4, [&](Communicator& world) { EXPECT_EQ(open_newest_valid(dir.path(), world)->step(), 1); });
  EXPECT_TRUE(fs::exists(dir / "step-2.damaged"));
}

/// Each of 3 ranks writes a column slice of one tensor whose elements say which step they belong to.
void save_columns(Communicator& world, const fs::path& dir, std::int64_t step, std::int64_t rows = 4096) {
  Tensor values = Tensor::empty(Shape{rows, 4}, DType::kF32);
  std::iota(values.span<float>().begin(), values.span<float>().end(), static_cast<float>(step + world.rank() * 100000));
  CheckpointWriter writer(dir, step, world, 16 << 10);
  writer.add_slice({"values", Shape{rows, 12}, {{0, 4 * world.rank()}, {rows, 4}}}, values);
  writer.commit();
}

void expect_step(const fs::path& step_dir) {
  const CheckpointReader reader = CheckpointReader::open(step_dir);
  EXPECT_TRUE(reader.damage().empty());
  const Tensor values = reader.read(reader.at("values"));
  EXPECT_EQ(values.span<float>()[0], static_cast<float>(reader.step()));
  EXPECT_EQ(values.span<float>()[11], static_cast<float>(reader.step() + 200003));
}

// A rank cannot write one of its files: while it adds, or at the commit.
TEST(RankFaults, ARankThatFailsFailsTheSaveOfAll) {
  const test::TempDir dir;
  run_local_group(3, [&](Communicator& world) { save_columns(world, dir.path(), 1); });
  for (const char* taken : {"shard-00001-00000.h5", "shard-00002-00003.h5", "manifest.json"}) {
    const auto told = messages(3, [&](Communicator& world) {
      Tensor values = Tensor::zeros(Shape{4096, 4}, DType::kF32);
      CheckpointWriter writer(dir.path(), 2, world, 16 << 10);
      if (world.is_root()) std::ofstream(dir / "step-2.tmp" / taken) << "in the way";
      world.barrier();
      writer.add_slice({"values", Shape{4096, 12}, {{0, 4 * world.rank()}, {4096, 4}}}, values);
      writer.commit();
    });
    expect_all(told, std::string(taken) + ": create failed");
    EXPECT_FALSE(fs::exists(dir / "step-2"));
    EXPECT_FALSE(fs::exists(dir / "step-2.tmp"));
    expect_step(dir / "step-1");
  }
  run_local_group(3, [&](Communicator& world) { save_columns(world, dir.path(), 2); });
  expect_step(dir / "step-2");
}

// A shard that changes between the write and the commit, as on a faulty disk: the commit reads everything back.
TEST(RankFaults, WhatReadsBackDifferentlyIsNeverCommitted) {
  const test::TempDir dir;
  for (const int ranks : {1, 3}) {
    const auto told = messages(ranks, [&](Communicator& world) {
      Tensor values = Tensor::zeros(Shape{4096, 4}, DType::kF32);
      CheckpointWriter writer(dir.path(), 1, world, 16 << 10);
      writer.add_slice({"values", Shape{4096, 4 * ranks}, {{0, 4 * world.rank()}, {4096, 4}}}, values);
      world.barrier();
      if (world.is_root()) {
        const fs::path shard = dir / "step-1.tmp" / (ranks == 1 ? "shard-00001.h5" : "shard-00001-00001.h5");
        std::string bytes = read_file(shard);
        bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 8);
        std::ofstream(shard, std::ios::binary | std::ios::trunc) << bytes;
      }
      world.barrier();
      writer.commit();
    });
    expect_all(told, "00001.h5: block 0 (bytes 0 to ");
    expect_all(told, "is damaged right after it was written; the disk or its memory is faulty");
    EXPECT_TRUE(fs::is_empty(dir.path()));
  }
}

/// Runs `body` in a process of its own, whose ranks are its threads; returns its id.
pid_t fork_ranks(const std::function<void()>& body) {
  const pid_t child = ::fork();
  if (child != 0) return child;
  int code = 0;
  try {
    body();
  } catch (const IoError&) {
    code = 7;
  } catch (...) {
    code = 8;
  }
  ::_exit(code);
}

TEST(RankFaults, KilledAnywhereLeavesOnlyWholeCheckpoints) {
  const test::TempDir dir;
  const int threads = num_threads();
  set_num_threads(1);  // a forked process has no workers
  const auto start = std::chrono::steady_clock::now();
  run_local_group(3, [&](Communicator& world) { save_columns(world, dir.path(), 1); });
  const std::chrono::duration<double, std::micro> one_commit = std::chrono::steady_clock::now() - start;
  std::int64_t last = 1;
  // Longer and longer; a machine that is busy may need more than twelve to let one through.
  for (int trial = 0; trial < 12 || (last == 1 && trial < 100); ++trial) {
    const pid_t child = fork_ranks([&] {
      run_local_group(3, [&](Communicator& world) {
        for (std::int64_t step = last + 1;; ++step) save_columns(world, dir.path(), step);
      });
    });
    ASSERT_GT(child, 0);
    ::usleep(static_cast<useconds_t>(one_commit.count() * 1.5 * (trial + 1) / 12));
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    const std::vector<StepDir> steps = list_checkpoints(dir.path());
    ASSERT_GE(steps.back().step, last);
    for (const StepDir& step : steps) expect_step(step.path);
    last = steps.back().step;
  }
  EXPECT_GT(last, 1) << "no child lived long enough to commit";
  run_local_group(3, [&](Communicator& world) { save_columns(world, dir.path(), last + 1); });
  run_local_group(2, [&](Communicator& world) { EXPECT_EQ(open_newest_valid(dir.path(), world)->step(), last + 1); });
  set_num_threads(threads);
}

// Files may have at most so many bytes: a shard fails, or the manifest does.
TEST(RankFaults, AFullDiskFailsTheSaveOfAllAndTheNextOneWorks) {
  const test::TempDir dir;
  const int threads = num_threads();
  set_num_threads(1);
  run_local_group(3, [&](Communicator& world) { save_columns(world, dir.path(), 1); });
  int failures = 0;
  for (rlim_t limit = 0; limit <= 24 << 10; limit += 1 << 10) {
    int status = 0;
    const pid_t child = fork_ranks([&] {
      ::signal(SIGXFSZ, SIG_IGN);
      const struct rlimit cap { limit, limit };
      ::setrlimit(RLIMIT_FSIZE, &cap);
      std::atomic<int> failed = 0;
      run_local_group(3, [&](Communicator& world) {
        try {
          save_columns(world, dir.path(), 2);
        } catch (const IoError&) {
          ++failed;
        }
      });
      ::_exit(failed == 0 ? 0 : failed == 3 ? 7 : 9);
    });
    ::waitpid(child, &status, 0);
    ASSERT_TRUE(WIFEXITED(status)) << "died with signal " << WTERMSIG(status);
    EXPECT_TRUE(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 7) << WEXITSTATUS(status);
    failures += WEXITSTATUS(status) == 7;
    EXPECT_FALSE(fs::exists(dir / "step-2.tmp"));
    EXPECT_EQ(fs::exists(dir / "step-2"), WEXITSTATUS(status) == 0);
    fs::remove_all(dir / "step-2");
  }
  expect_step(dir / "step-1");
  EXPECT_GT(failures, 5);
  run_local_group(3, [&](Communicator& world) { save_columns(world, dir.path(), 2); });
  expect_step(dir / "step-2");
  set_num_threads(threads);
}

}  // namespace
}  // namespace hadal::checkpoint
