// Guards: the arithmetic of slices against element-by-element counting: boxes of a range, runs that two slices share, tilings,
// and the layout-free hash of tensors cut in any way.
#include "checkpoint/slice.h"

#include <gtest/gtest.h>

#include <map>
#include <numeric>
#include <random>
#include <vector>

#include "checkpoint/assignment.h"
#include "checkpoint/checkpoint_reader.h"
#include "checkpoint/checkpoint_writer.h"
#include "checkpoint/overlap.h"
#include "core/rng.h"
#include "tests/support/temp_dir.h"

namespace hadal::checkpoint {
namespace {

/// Index in the whole tensor of each packed element of a slice.
std::vector<std::int64_t> logical_indices(const Shape& shape, const Slice& slice) {
  std::vector<std::int64_t> indices;
  for (std::int64_t i = 0; i < slice.numel(); ++i) {
    std::int64_t index = 0, stride = 1, rest = i;
    for (int d = shape.rank() - 1; d >= 0; --d) {
      const auto dim = static_cast<std::size_t>(d);
      index += (slice.begin[dim] + rest % slice.extent[dim]) * stride;
      rest /= slice.extent[dim];
      stride *= shape[d];
    }
    indices.push_back(index);
  }
  return indices;
}

class Choices {
 public:
  explicit Choices(std::uint64_t seed) : engine_(seed) {}
  /// low <= value <= high.
  std::int64_t between(std::int64_t low, std::int64_t high) {
    return low + static_cast<std::int64_t>(engine_() % static_cast<std::uint64_t>(high - low + 1));
  }
  Shape shape() {
    std::vector<std::int64_t> extents(static_cast<std::size_t>(between(0, 4)));
    for (std::int64_t& extent : extents) extent = between(1, 6);
    return Shape(std::span<const std::int64_t>(extents));
  }
  Slice slice(const Shape& shape) {
    Slice slice;
    for (const std::int64_t extent : shape.extents()) {
      slice.begin.push_back(between(0, extent - 1));
      slice.extent.push_back(between(1, extent - slice.begin.back()));
    }
    return slice;
  }

 private:
  std::mt19937_64 engine_;
};

TEST(Slice, BoxesOfARangeAreItsElementsInOrder) {
  Choices choose(1);
  for (int trial = 0; trial < 20000; ++trial) {
    const Shape shape = choose.shape();
    const Slice slice = choose.slice(shape);
    const std::int64_t begin = choose.between(0, slice.numel()), end = choose.between(begin, slice.numel());
    const std::vector<std::int64_t> all = logical_indices(shape, slice);
    const std::vector<Slice> boxes = boxes_of_range(slice, begin, end);
    std::vector<std::int64_t> found;
    for (const Slice& box : boxes) {
      const std::vector<std::int64_t> part = logical_indices(shape, box);
      found.insert(found.end(), part.begin(), part.end());
    }
    EXPECT_EQ(found, std::vector<std::int64_t>(all.begin() + begin, all.begin() + end))
        << slice.str() << " " << begin << " " << end;
    EXPECT_LE(boxes.size(), static_cast<std::size_t>(std::max(1, 2 * shape.rank() - 1)));
  }
}

TEST(Slice, RunsOfAnOverlapAreItsElements) {
  Choices choose(2);
  for (int trial = 0; trial < 20000; ++trial) {
    const Shape shape = choose.shape();
    const Slice from = choose.slice(shape), to = choose.slice(shape);
    const std::vector<std::int64_t> from_indices = logical_indices(shape, from), to_indices = logical_indices(shape, to);
    const ElementRange in_from{choose.between(0, from.numel()), choose.between(0, from.numel())};
    const ElementRange in_to{choose.between(0, to.numel()), choose.between(0, to.numel())};
    std::map<std::int64_t, std::int64_t> expected;
    std::int64_t first = from.numel(), last = -1;
    for (std::int64_t i = 0; i < from.numel(); ++i) {
      for (std::int64_t j = 0; j < to.numel(); ++j) {
        if (from_indices[static_cast<std::size_t>(i)] != to_indices[static_cast<std::size_t>(j)] || j < in_to.begin ||
            j >= in_to.end)
          continue;
        first = std::min(first, i);
        last = std::max(last, i);
        if (i >= in_from.begin && i < in_from.end) expected[i] = j;
      }
    }
    const Overlap both(from, to);
    EXPECT_EQ(both.empty(), !overlap(from, to));
    std::map<std::int64_t, std::int64_t> found;
    both.for_each(in_from, in_to, [&](const Overlap::Run& run) {
      for (std::int64_t i = 0; i < run.count; ++i) EXPECT_TRUE(found.emplace(run.from + i, run.to + i).second);
    });
    EXPECT_EQ(found, expected) << from.str() << " and " << to.str();
    EXPECT_EQ(both.any(in_from, in_to), !expected.empty());
    const ElementRange range = both.from_range(in_to);
    EXPECT_EQ(range.begin, last < 0 ? 0 : first);
    EXPECT_EQ(range.end, last + 1);
  }
}

TEST(Slice, TilingsAreTold) {
  const Shape shape{4, 6};
  const Slice top{{0, 0}, {2, 6}}, left{{2, 0}, {2, 3}}, right{{2, 3}, {2, 3}}, wide{{2, 2}, {2, 4}};
  const auto problem = [&](std::vector<const Slice*> slices) { return tiling_problem(shape, slices); };
  EXPECT_EQ(problem({&right, &top, &left}), "");
  EXPECT_EQ(problem({&top, &left}), "slices hold 18 of 24 elements: they do not cover it");
  EXPECT_EQ(problem({&top, &left, &wide}), "slices [2:4, 0:3] and [2:4, 2:6] overlap");
  EXPECT_EQ(problem({&top, &left, &right, &top}), "slices [0:2, 0:6] and [0:2, 0:6] overlap");
}

TEST(Assignment, SpreadsBytesEvenlyAndAlikeEverywhere) {
  const std::vector<std::int64_t> bytes{7, 100, 30, 30, 30, 7, 3, 0};
  const std::vector<int> members = assign_evenly(bytes, 2);
  std::int64_t loads[2] = {0, 0};
  for (std::size_t i = 0; i < bytes.size(); ++i) loads[members[i]] += bytes[i];
  EXPECT_EQ(loads[0] + loads[1], 207);
  EXPECT_LE(std::abs(loads[0] - loads[1]), 7);
  EXPECT_EQ(members, assign_evenly(bytes, 2));
  EXPECT_EQ(assign_evenly(bytes, 1), std::vector<int>(8, 0));
}

// 23 MiB: several bands of the hash and blocks of a file; cut into columns, rows and a box, by one writer.
TEST(Slice, HashAndReadsDoNotDependOnTheCut) {
  const test::TempDir dir;
  const Shape shape{1201, 5003};
  Tensor values = Tensor::empty(shape, DType::kF32);
  for (std::size_t i = 0; i < values.span<float>().size(); ++i) values.span<float>()[i] = static_cast<float>(i * 7 % 16777213);
  const auto bytes = std::as_bytes(values.span<float>());
  CheckpointWriter writer(dir.path(), 1, 9 << 20);
  for (const Slice& slice :
       {Slice{{0, 0}, {1201, 1}}, Slice{{0, 1}, {700, 2500}}, Slice{{0, 2501}, {700, 2502}}, Slice{{700, 1}, {501, 5002}}}) {
    Tensor part = Tensor::empty(Shape(std::span<const std::int64_t>(slice.extent)), DType::kF32);
    Overlap(whole_slice(shape), slice).for_each({0, shape.numel()}, {0, slice.numel()}, [&](const Overlap::Run& run) {
      std::copy_n(values.as<float>() + run.from, run.count, part.as<float>() + run.to);
    });
    writer.add_slice({"a", shape, slice}, std::move(part));
  }
  const CheckpointReader reader = CheckpointReader::open(writer.commit());
  const StoredTensor& stored = reader.at("a");
  EXPECT_GT(stored.pieces.size(), 4u);
  EXPECT_EQ(stored.hash, hash128(bytes));
  EXPECT_TRUE(reader.damage().empty());
  EXPECT_EQ(hash128(std::as_bytes(reader.read(stored).span<float>())), stored.hash);
  Choices choose(3);
  for (int trial = 0; trial < 20; ++trial) {
    const Slice slice = choose.slice(shape);
    const std::int64_t first = choose.between(0, slice.numel() - 1), count = choose.between(1, slice.numel() - first);
    Tensor part = Tensor::zeros(Shape{count}, trial % 2 == 0 ? DType::kF32 : DType::kF64);
    const SliceRead read{&stored, slice, part, first};
    reader.read_slices({&read, 1});
    std::int64_t wrong = 0;
    Overlap(whole_slice(shape), slice).for_each({0, shape.numel()}, {first, first + count}, [&](const Overlap::Run& run) {
      for (std::int64_t i = 0; i < run.count; ++i) {
        const float expected = values.as<float>()[run.from + i];
        const std::int64_t at = run.to - first + i;
        wrong += trial % 2 == 0 ? part.as<float>()[at] != expected : part.as<double>()[at] != static_cast<double>(expected);
      }
    });
    EXPECT_EQ(wrong, 0) << slice.str();
  }
}

}  // namespace
}  // namespace hadal::checkpoint
