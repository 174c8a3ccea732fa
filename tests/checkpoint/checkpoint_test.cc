// Checkpoints: what is saved comes back bit for bit, every altered byte is refused by name, and only whole ones count.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <functional>
#include <numeric>

#include "checkpoint/checkpoint_reader.h"
#include "checkpoint/checkpoint_writer.h"
#include "checkpoint/parameters.h"
#include "checkpoint/run_lock.h"
#include "checkpoint/run_status.h"
#include "checkpoint/store.h"
#include "core/error.h"
#include "core/file.h"
#include "tests/support/temp_dir.h"

namespace hadal::checkpoint {
namespace {

namespace fs = std::filesystem;

Tensor numbered(Shape shape, float start) {
  Tensor tensor = Tensor::empty(shape, DType::kF32);
  std::iota(tensor.span<float>().begin(), tensor.span<float>().end(), start);
  return tensor;
}

/// Two matrices, a scalar, a bf16 vector, an empty tensor; cut into shards of `shard_bytes`.
fs::path write_example(const fs::path& dir, std::int64_t step, float start = 0.5f, std::uint64_t shard_bytes = 64) {
  const Tensor a = numbered(Shape{7, 5}, start);
  const Tensor m = numbered(Shape{7, 5}, -start);
  const Tensor scalar = numbered(Shape{}, 3.0f);
  Tensor bf16 = Tensor::zeros(Shape{9}, DType::kBf16);
  bf16.as<Bf16>()[4] = to_bf16(2.5f);
  const Tensor empty = Tensor::zeros(Shape{0, 4}, DType::kI64);
  CheckpointWriter writer(dir, step, shard_bytes);
  writer.add("a.weight", a);
  writer.add("optim.m/a.weight", m);
  writer.add("scalar", scalar);
  writer.add("b.bias", bf16);
  writer.add("empty", empty);
  writer.state().set("tokens", std::int64_t{123});
  writer.state().set("seed", ~std::uint64_t{0});
  writer.state().set("loss", 0.1);
  writer.state().set("config", "model:\n  x: \"1\"\n");
  return writer.commit();
}

std::string message_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

void write(const fs::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

TEST(Checkpoint, WhatIsSavedComesBack) {
  const test::TempDir dir;
  const fs::path step = write_example(dir.path(), 10);
  EXPECT_EQ(step, dir / "step-10");
  EXPECT_FALSE(fs::exists(dir / "step-10.tmp"));
  const CheckpointReader reader = CheckpointReader::open(step);
  EXPECT_EQ(reader.step(), 10);
  ASSERT_EQ(reader.tensors().size(), 5u);
  EXPECT_GT(reader.files().size(), 3u);
  const StoredTensor& a = reader.at("a.weight");
  EXPECT_EQ(a.pieces.size(), 3u) << "140 bytes in pieces of at most 64";
  const Tensor expected = numbered(Shape{7, 5}, 0.5f);
  const Tensor read = reader.read(a);
  EXPECT_EQ(std::memcmp(static_cast<ConstView>(read).data, static_cast<ConstView>(expected).data, expected.bytes()), 0);
  EXPECT_EQ(a.hash, hash128(std::as_bytes(expected.span<float>())));
  EXPECT_EQ(reader.read(reader.at("scalar")).span<float>()[0], 3.0f);
  EXPECT_EQ(to_float(reader.read(reader.at("b.bias")).span<Bf16>()[4]), 2.5f);
  EXPECT_EQ(reader.at("empty").shape, (Shape{0, 4}));
  EXPECT_EQ(reader.state().integer("tokens"), 123);
  EXPECT_EQ(reader.state().unsigned_integer("seed"), ~std::uint64_t{0});
  EXPECT_EQ(reader.state().number("loss"), 0.1);
  EXPECT_EQ(reader.state().text("config"), "model:\n  x: \"1\"\n");
  EXPECT_THROW(reader.state().integer("config"), DamagedDataError);
  EXPECT_THROW(reader.state().text("absent"), DamagedDataError);
  EXPECT_TRUE(reader.damage().empty());
}

TEST(Checkpoint, SameStateSameBytes) {
  const test::TempDir dir;
  const fs::path one = write_example(dir / "one", 3);
  const fs::path two = write_example(dir / "two", 3);
  for (const auto& entry : fs::directory_iterator(one)) {
    EXPECT_EQ(read_file(entry.path()), read_file(two / entry.path().filename())) << entry.path();
  }
}

TEST(Checkpoint, DtypeIsNeverCastSilently) {
  const test::TempDir dir;
  const CheckpointReader reader = CheckpointReader::open(write_example(dir.path(), 1));
  Tensor wide = Tensor::empty(Shape{7, 5}, DType::kF64);
  EXPECT_THROW(reader.read_into(reader.at("a.weight"), wide), UserError);
  EXPECT_THROW(reader.read_into(reader.at("a.weight"), Tensor::empty(Shape{5, 7}, DType::kF32)), UserError);
  reader.read_converted(reader.at("a.weight"), wide);
  EXPECT_EQ(wide.span<double>()[34], 34.5);
}

// Every byte of manifest and COMMIT and every 41st of the shard, changed in one bit: opening refuses and names the file.
TEST(Checkpoint, EveryFlippedByteIsRefusedByName) {
  const test::TempDir dir;
  const fs::path step = write_example(dir.path(), 1, 0.5f, 4096);
  for (const auto& entry : fs::directory_iterator(step)) {
    const std::string good = read_file(entry.path());
    const std::string name = entry.path().filename().string();
    const bool shard = name.starts_with("shard");
    for (std::size_t i = 0; i < good.size(); i += shard ? 41 : 1) {
      std::string bad = good;
      bad[i] = static_cast<char>(bad[i] ^ (1 << (i % 8)));
      write(entry.path(), bad);
      const std::string message = message_of([&] { CheckpointReader::open(step); });
      ASSERT_NE(message.find(name), std::string::npos) << name << " byte " << i << ": " << message;
      if (shard) {
        ASSERT_NE(message.find("block 0"), std::string::npos) << message;
      }
    }
    for (std::size_t size = 0; size < good.size(); size += shard ? 4093 : 7) {
      write(entry.path(), good.substr(0, size));
      EXPECT_THROW(CheckpointReader::open(step), DamagedDataError) << name << " cut at " << size;
    }
    write(entry.path(), good + "x");
    EXPECT_THROW(CheckpointReader::open(step), DamagedDataError) << name << " with a byte more";
    write(entry.path(), good);
  }
  EXPECT_NO_THROW(CheckpointReader::open(step));
}

// A read that happens after opening is checked again, and names the tensor and the block.
TEST(Checkpoint, DamageAfterOpeningIsSeenByTheRead) {
  const test::TempDir dir;
  const fs::path step = write_example(dir.path(), 1);
  const CheckpointReader reader = CheckpointReader::open(step);
  const StoredTensor& tensor = reader.at("a.weight");
  const fs::path file = step / reader.files()[static_cast<std::size_t>(tensor.pieces[1].file)].name;
  std::string bytes = read_file(file);
  bytes[tensor.pieces[1].offset + 3] = static_cast<char>(bytes[tensor.pieces[1].offset + 3] ^ 1);
  write(file, bytes);
  const std::string message = message_of([&] { reader.read(tensor); });
  EXPECT_NE(message.find("a.weight"), std::string::npos) << message;
  EXPECT_NE(message.find("block 0"), std::string::npos) << message;
  EXPECT_NE(message.find(file.filename().string()), std::string::npos) << message;
  EXPECT_EQ(reader.damage().size(), 3u) << "a block, a file, a tensor";
}

TEST(Checkpoint, MissingExtraSwappedAndLinkedFilesAreRefused) {
  const test::TempDir dir;
  const fs::path one = write_example(dir.path(), 1);
  const fs::path two = write_example(dir.path(), 2, 7.5f);
  fs::rename(one / "shard-00000.h5", dir / "kept");
  EXPECT_NE(message_of([&] { CheckpointReader::open(one); }).find("shard-00000.h5"), std::string::npos);
  fs::create_symlink(dir / "kept", one / "shard-00000.h5");
  EXPECT_NE(message_of([&] { CheckpointReader::open(one); }).find("regular"), std::string::npos);
  fs::remove(one / "shard-00000.h5");
  fs::copy_file(two / "shard-00000.h5", one / "shard-00000.h5");
  EXPECT_NE(message_of([&] { CheckpointReader::open(one); }).find("shard-00000.h5: block 0"), std::string::npos);
  fs::remove(one / "shard-00000.h5");
  fs::rename(dir / "kept", one / "shard-00000.h5");
  EXPECT_NO_THROW(CheckpointReader::open(one));
  write(one / "shard-00099.h5", "x");
  EXPECT_NE(message_of([&] { CheckpointReader::open(one); }).find("shard-00099.h5"), std::string::npos);
}

TEST(Checkpoint, CommittedStepIsNeverOverwritten) {
  const test::TempDir dir;
  write_example(dir.path(), 1);
  EXPECT_THROW(CheckpointWriter(dir.path(), 1), UserError);
}

TEST(Checkpoint, UncommittedWriterLeavesNothing) {
  const test::TempDir dir;
  const Tensor a = numbered(Shape{100}, 0.0f);
  {
    CheckpointWriter writer(dir.path(), 4, 64);
    writer.add("a", a);
    EXPECT_TRUE(fs::exists(dir / "step-4.tmp"));
  }
  EXPECT_TRUE(fs::is_empty(dir.path()));
}

TEST(CheckpointStore, FindsTheNewestCompleteStep) {
  const test::TempDir dir;
  EXPECT_EQ(message_of([&] { find_checkpoint(dir / "absent"); }).find("does not exist") != std::string::npos, true);
  try {
    find_checkpoint(dir.path());
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kNoCheckpoint);
  }
  const fs::path checkpoints = dir / "checkpoints";
  write_example(checkpoints, 9);
  write_example(checkpoints, 10);
  fs::create_directory(checkpoints / "step-11.tmp");
  fs::create_directory(checkpoints / "step-12");
  fs::create_directory(checkpoints / "step-x");
  EXPECT_EQ(find_checkpoint(dir.path()), checkpoints / "step-10");
  EXPECT_EQ(find_checkpoint(checkpoints), checkpoints / "step-10");
  EXPECT_EQ(find_checkpoint(checkpoints / "step-9"), checkpoints / "step-9");
}

TEST(CheckpointStore, DamagedNewestFallsBackAndIsKeptAside) {
  const test::TempDir dir;
  EXPECT_FALSE(open_newest_valid(dir.path()).has_value());
  write_example(dir.path(), 1);
  write_example(dir.path(), 2);
  std::string bytes = read_file(dir / "step-2" / "shard-00001.h5");
  bytes[bytes.size() / 2] ^= 4;
  write(dir / "step-2" / "shard-00001.h5", bytes);
  const auto reader = open_newest_valid(dir.path());
  ASSERT_TRUE(reader.has_value());
  EXPECT_EQ(reader->step(), 1);
  EXPECT_TRUE(fs::exists(dir / "step-2.damaged" / "shard-00001.h5"));
  EXPECT_EQ(list_checkpoints(dir.path()).size(), 1u);
  fs::resize_file(dir / "step-1" / "manifest.json", 100);
  try {
    open_newest_valid(dir.path());
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kNoCheckpoint);
  }
}

TEST(CheckpointStore, KeepsTheNewest) {
  const test::TempDir dir;
  for (const std::int64_t step : {1, 2, 10, 9}) write_example(dir.path(), step);
  keep_newest(dir.path(), 2);
  const std::vector<StepDir> left = list_checkpoints(dir.path());
  ASSERT_EQ(left.size(), 2u);
  EXPECT_EQ(left[0].step, 9);
  EXPECT_EQ(left[1].step, 10);
  EXPECT_FALSE(fs::exists(dir / "step-1"));
}

TEST(CheckpointParameters, FusedParametersAreLogicalTensors) {
  const test::TempDir dir;
  nn::Parameter fused("gate_up", Shape{4, 3}, DType::kF32, {},
                      {nn::whole_part("gate.weight", Shape{2, 3}, 0), nn::whole_part("up.weight", Shape{2, 3}, 6)});
  nn::Parameter norm("norm.weight", Shape{3}, DType::kF32, {.init = nn::Init::ones()});
  std::iota(fused.value().span<float>().begin(), fused.value().span<float>().end(), 1.0f);
  norm.initialize(1);
  CheckpointWriter writer(dir.path(), 1);
  save_parameters(writer, {&fused, &norm});
  Tensor moment = numbered(Shape{4, 3}, 100.0f);
  save_values(writer, {{&fused, moment}}, "optim.m/");
  const CheckpointReader reader = CheckpointReader::open(writer.commit());
  EXPECT_EQ(reader.read(reader.at("up.weight")).span<float>()[0], 7.0f);

  nn::Parameter again("gate_up", Shape{4, 3}, DType::kF32, {},
                      {nn::whole_part("gate.weight", Shape{2, 3}, 0), nn::whole_part("up.weight", Shape{2, 3}, 6)});
  nn::Parameter norm_again("norm.weight", Shape{3}, DType::kF32, {});
  load_parameters(reader, {&again, &norm_again});
  EXPECT_EQ(again.value().span<float>()[11], 12.0f);
  Tensor moment_again = Tensor::zeros(Shape{4, 3}, DType::kF32);
  load_values(reader, {{&fused, moment_again}}, "optim.m/");
  EXPECT_EQ(moment_again.span<float>()[11], 111.0f);

  // A rank that holds columns 1..2 of `up` only.
  nn::Parameter slice("up_slice", Shape{2, 2}, DType::kF64, {}, {{"up.weight", Shape{2, 3}, {0, 1}, {2, 2}, 0}});
  load_parameters(reader, {&slice}, "", {.convert_dtype = true, .allow_extra = true});
  EXPECT_EQ(slice.value().span<double>()[0], 8.0);
  EXPECT_EQ(slice.value().span<double>()[3], 12.0);

  nn::Parameter wrong("gate.weight", Shape{3, 2}, DType::kF32, {});
  nn::Parameter absent("absent.weight", Shape{2}, DType::kF32, {});
  nn::Parameter wide("up.weight", Shape{2, 3}, DType::kF64, {});
  const std::string message = message_of([&] { load_parameters(reader, {&wrong, &absent, &wide}); });
  EXPECT_NE(message.find("another shape: gate.weight is [2, 3], the model has [3, 2]"), std::string::npos) << message;
  EXPECT_NE(message.find("missing: absent.weight [2]"), std::string::npos) << message;
  EXPECT_NE(message.find("another dtype: up.weight is f32, the model has f64"), std::string::npos) << message;
  EXPECT_NE(message.find("extra: norm.weight [3]"), std::string::npos) << message;
  EXPECT_EQ(message.find("optim.m"), std::string::npos) << message;
}

TEST(RunLock, SecondHolderIsRefused) {
  const test::TempDir dir;
  {
    const RunLock lock(dir / "run");
    try {
      const RunLock second(dir / "run");
      FAIL();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kLocked);
      EXPECT_NE(std::string(error.what()).find(std::to_string(::getpid())), std::string::npos);
    }
  }
  EXPECT_NO_THROW(RunLock(dir / "run"));
}

TEST(RunStatus, IsOneJsonLine) {
  const test::TempDir dir;
  write_run_status(dir.path(), {"stopped", 12, "checkpoints/step-12", 75});
  EXPECT_EQ(read_file(dir / "status.json"),
            "{\"state\":\"stopped\",\"step\":12,\"checkpoint\":\"checkpoints/step-12\",\"exit_code\":75}\n");
}

}  // namespace
}  // namespace hadal::checkpoint
