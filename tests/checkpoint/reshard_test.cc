// Guards: any layout loads what any other saved, moments included, bit for bit; any number of shards keeps every hash; and a load
// needs no more memory than its slices and a block (spec/reliability.md 3, T9).
#include "checkpoint/reshard.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "checkpoint/checkpoint_reader.h"
#include "checkpoint/checkpoint_writer.h"
#include "checkpoint/parameters.h"
#include "comm/local/local_group.h"
#include "core/error.h"
#include "tests/checkpoint/layouts.h"
#include "tests/support/temp_dir.h"

namespace hadal::checkpoint {
namespace {

namespace fs = std::filesystem;
using comm::Communicator;
using comm::run_local_group;
using test_layouts::Layout;
using test_layouts::load_model;
using test_layouts::RankModel;
using test_layouts::save_model;
using test_layouts::twelve_layouts;

/// Same tensors and hashes; `to` is sound.
void expect_same_tensors(const CheckpointReader& from, const CheckpointReader& to) {
  EXPECT_TRUE(to.damage().empty());
  ASSERT_EQ(from.tensors().size(), to.tensors().size());
  for (std::size_t i = 0; i < from.tensors().size(); ++i) {
    EXPECT_EQ(from.tensors()[i].name, to.tensors()[i].name);
    EXPECT_EQ(from.tensors()[i].hash, to.tensors()[i].hash) << from.tensors()[i].name;
  }
}

TEST(Reshard, TwelveLayoutsLoadEachOther) {
  const test::TempDir dir;
  const std::vector<Layout>& layouts = twelve_layouts();
  std::vector<CheckpointReader> saved;
  for (std::size_t a = 0; a < layouts.size(); ++a) {
    run_local_group(layouts[a].ranks(),
                    [&](Communicator& world) { save_model(layouts[a], world, dir.path(), static_cast<std::int64_t>(a)); });
    saved.push_back(CheckpointReader::open(dir / fmt::format("step-{}", a)));
    ASSERT_EQ(saved[a].tensors().size(), saved[0].tensors().size());
    std::size_t in_pieces = 0;
    for (std::size_t i = 0; i < saved[0].tensors().size(); ++i) {
      const StoredTensor &one = saved[0].tensors()[i], &other = saved[a].tensors()[i];
      ASSERT_EQ(one.name, other.name);
      EXPECT_EQ(one.shape, other.shape);
      EXPECT_EQ(one.hash, other.hash) << one.name << " saved by " << layouts[a].str();
      in_pieces += other.pieces.size() > 1;
    }
    EXPECT_TRUE(saved[a].damage().empty());
    if (layouts[a].dp * layouts[a].tp > 1) {
      EXPECT_GT(in_pieces, 30u) << layouts[a].str();
    }
  }
  int pairs = 0;
  for (const Layout& b : layouts) {
    for (std::size_t a = 0; a < layouts.size(); ++a, ++pairs) {
      run_local_group(b.ranks(), [&](Communicator& world) {
        const std::string wrong = load_model(b, world, saved[a].path());
        EXPECT_EQ(wrong, "") << layouts[a].str() << " loaded by " << b.str();
      });
    }
  }
  EXPECT_EQ(pairs, 144);
}

// What a layout loaded, it saves again: around a chain and back, the same hashes.
TEST(Reshard, ChainsOfLayoutsKeepEveryHash) {
  const test::TempDir dir;
  const std::vector<Layout>& layouts = twelve_layouts();
  run_local_group(layouts[10].ranks(), [&](Communicator& world) { save_model(layouts[10], world, dir.path(), 0); });
  std::int64_t step = 0;
  for (const std::size_t next : {7u, 4u, 0u, 8u, 10u}) {
    run_local_group(layouts[next].ranks(), [&](Communicator& world) {
      const CheckpointReader reader = CheckpointReader::open(dir / fmt::format("step-{}", step), world);
      RankModel weights(layouts[next], world.rank()), first(layouts[next], world.rank()), second(layouts[next], world.rank());
      for (RankModel* model : {&weights, &first, &second}) model->spoil();
      load_values(reader, weights.all(), "", {}, world);
      load_values(reader, first.shares(), "optim.m/", {}, world);
      load_values(reader, second.shares(), "optim.v/", {}, world);
      CheckpointWriter writer(dir.path(), step + 1, world);
      save_values(writer, second.shares(), "optim.v/");
      save_values(writer, weights.chosen(), "");
      save_values(writer, first.shares(), "optim.m/");
      writer.commit();
    });
    ++step;
  }
  expect_same_tensors(CheckpointReader::open(dir / "step-0"), CheckpointReader::open(dir / "step-5"));
}

TEST(Reshard, BytesAreSpreadOverTheRanks) {
  const test::TempDir dir;
  const Layout layout{.dp = 4};
  run_local_group(4, [&](Communicator& world) { save_model(layout, world, dir.path(), 1); });
  const CheckpointReader reader = CheckpointReader::open(dir / "step-1");
  std::vector<std::int64_t> bytes(4, 0);
  for (const StoredTensor& tensor : reader.tensors()) {
    for (const Piece& piece : tensor.pieces) {
      const std::string& file = reader.files()[static_cast<std::size_t>(piece.file)].name;
      bytes[static_cast<std::size_t>(std::stoi(file.substr(6, 5)))] +=
          piece.slice.numel() * static_cast<std::int64_t>(size_of(tensor.dtype));
    }
  }
  const auto [least, most] = std::ranges::minmax(bytes);
  EXPECT_LE(static_cast<double>(most), 1.02 * static_cast<double>(least));
}

TEST(Reshard, AnyNumberOfShardsKeepsEveryHash) {
  const test::TempDir dir;
  const Layout layout{.dp = 2, .tp = 2, .ep = 2};
  run_local_group(4, [&](Communicator& world) { save_model(layout, world, dir / "from", 3); });
  const CheckpointReader from = CheckpointReader::open(dir / "from" / "step-3");
  std::uint64_t total = 0;
  for (const StoredTensor& tensor : from.tensors())
    total += static_cast<std::uint64_t>(tensor.shape.numel()) * size_of(tensor.dtype);
  for (const std::int64_t shards : {std::int64_t{1}, std::int64_t{2}, std::int64_t{7}, static_cast<std::int64_t>(total / 4096)}) {
    std::uint64_t told = 0;
    const fs::path step = reshard(from, dir / fmt::format("{}-shards", shards),
                                  {.num_shards = shards, .on_bytes = [&](std::uint64_t bytes) { told += bytes; }});
    const CheckpointReader to = CheckpointReader::open(step);
    EXPECT_EQ(to.files().size(), static_cast<std::size_t>(shards));
    EXPECT_EQ(to.step(), 3);
    EXPECT_EQ(to.state().integer("saved_by_rank"), 0);
    EXPECT_EQ(told, total);
    expect_same_tensors(from, to);
    run_local_group(3, [&](Communicator& world) { EXPECT_EQ(load_model({.dp = 3, .ep = 3}, world, step), ""); });
  }
  for (const std::uint64_t bytes : {4096, 10000, 1 << 20}) {
    const CheckpointReader to = CheckpointReader::open(
        reshard(from, dir / fmt::format("{}-bytes", bytes), {.num_shards = std::nullopt, .shard_bytes = bytes, .on_bytes = {}}));
    EXPECT_GE(to.files().size(), total / bytes);
    expect_same_tensors(from, to);
  }
  for (const std::int64_t shards : {std::int64_t{0}, std::int64_t{-3}, static_cast<std::int64_t>(total / 4096 + 1)}) {
    EXPECT_THROW(reshard(from, dir / "refused", {.num_shards = shards, .on_bytes = {}}), UserError);
  }
  EXPECT_THROW(reshard(from, dir / "7-shards", {.num_shards = 2, .on_bytes = {}}), UserError) << "never overwrites";
  EXPECT_FALSE(fs::exists(dir / "refused"));
}

// 80 MiB in column slices; each rank loads its rows. Beyond the slices, a load holds one block for each rank.
TEST(Reshard, MemoryOfALoadIsTheSlicesAndABlock) {
  const test::TempDir dir;
  constexpr std::int64_t kRows = 4096, kColumns = 5120, kRanks = 4;
  run_local_group(kRanks, [&](Communicator& world) {
    Tensor values = Tensor::zeros(Shape{kRows, kColumns / kRanks}, DType::kF32);
    values.span<float>()[1] = static_cast<float>(world.rank() + 1);
    CheckpointWriter writer(dir.path(), 1, world, 8 << 20);
    writer.add_slice({"wide", Shape{kRows, kColumns}, {{0, world.rank() * kColumns / kRanks}, {kRows, kColumns / kRanks}}},
                     values);
    writer.commit();
  });
  for (const int ranks : {1, 4}) {
    for (const DType dtype : {DType::kF32, DType::kF64}) {
      run_local_group(ranks, [&](Communicator& world) {
        nn::Parameter part("wide_rows", Shape{kRows / ranks, kColumns}, dtype, {},
                           {nn::sliced_part("wide", Shape{kRows, kColumns}, 0, world.rank() * kRows / ranks, kRows / ranks, 0)});
        const CheckpointReader reader = CheckpointReader::open(dir / "step-1", world, Check::kManifest);
        world.barrier();
        if (world.is_root()) reset_peak(kCpu);
        const std::size_t before = memory_stats(kCpu).live_bytes;
        world.barrier();
        load_values(reader, {{&part, part.value()}}, "", {.convert_dtype = true}, world);
        world.barrier();
        const std::size_t more = memory_stats(kCpu).peak_bytes - before;
        EXPECT_GE(more, kBlockBytes);
        EXPECT_LE(more, static_cast<std::size_t>(ranks) * (kBlockBytes + (64 << 10)));
        if (world.rank() == 0) {
          EXPECT_EQ(dtype == DType::kF32 ? part.value().as<float>()[kColumns / kRanks + 1]
                                         : part.value().as<double>()[kColumns / kRanks + 1],
                    2);
        }
      });
    }
  }
}

}  // namespace
}  // namespace hadal::checkpoint
