// Guards: shard files are sound HDF5 files: the library itself finds every dataset, of its type and shape, with its values.
#include <gtest/gtest.h>
#include <hdf5.h>

#include <numeric>

#include "checkpoint/checkpoint_reader.h"
#include "checkpoint/checkpoint_writer.h"
#include "tests/support/temp_dir.h"

namespace hadal::checkpoint {
namespace {

/// Extents and values of a dataset as `type` in memory.
template <class T>
std::pair<std::vector<hsize_t>, std::vector<T>> read_dataset(hid_t file, const std::string& name, hid_t type) {
  const hid_t dataset = H5Dopen2(file, name.c_str(), H5P_DEFAULT);
  if (dataset < 0) return {};
  const hid_t space = H5Dget_space(dataset), stored = H5Dget_type(dataset);
  std::vector<hsize_t> extents(static_cast<std::size_t>(H5Sget_simple_extent_ndims(space)));
  H5Sget_simple_extent_dims(space, extents.data(), nullptr);
  std::vector<T> values(static_cast<std::size_t>(H5Sget_simple_extent_npoints(space)));
  if (H5Tequal(stored, type) <= 0 || H5Dread(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()) < 0) values.clear();
  H5Tclose(stored);
  H5Sclose(space);
  H5Dclose(dataset);
  return {extents, values};
}

TEST(ShardImage, TheLibraryReadsWhatWasLaidOut) {
  const test::TempDir dir;
  Tensor matrix = Tensor::empty(Shape{300, 7}, DType::kF32), moment = Tensor::empty(Shape{300, 7}, DType::kF64);
  std::iota(matrix.span<float>().begin(), matrix.span<float>().end(), 0.5f);
  std::iota(moment.span<double>().begin(), moment.span<double>().end(), -3.0);
  Tensor scalar = Tensor::empty(Shape{}, DType::kI64);
  *scalar.as<std::int64_t>() = 42;
  Tensor narrow = Tensor::zeros(Shape{3}, DType::kBf16);
  narrow.as<Bf16>()[1] = to_bf16(1.0f);
  CheckpointWriter writer(dir.path(), 1);
  writer.add("a.weight", matrix);
  writer.add("optim.m/a.weight", moment);
  writer.add("count", scalar);
  writer.add_slice({"b.bias", Shape{3}, {{0}, {1}}}, static_cast<ConstView>(narrow).rows(0, 1));
  writer.add_slice({"b.bias", Shape{3}, {{1}, {2}}}, static_cast<ConstView>(narrow).rows(1, 3));
  const CheckpointReader reader = CheckpointReader::open(writer.commit());
  ASSERT_EQ(reader.files().size(), 1u);
  const hid_t file = H5Fopen((reader.path() / reader.files()[0].name).c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  ASSERT_GE(file, 0);
  const auto [a_extents, a] = read_dataset<float>(file, "a.weight", H5T_IEEE_F32LE);
  EXPECT_EQ(a_extents, (std::vector<hsize_t>{300, 7}));
  EXPECT_EQ(a, std::vector<float>(matrix.span<float>().begin(), matrix.span<float>().end()));
  const auto [m_extents, m] = read_dataset<double>(file, "optim.m/a.weight", H5T_IEEE_F64LE);
  EXPECT_EQ(m, std::vector<double>(moment.span<double>().begin(), moment.span<double>().end()));
  const auto [count_extents, count] = read_dataset<std::int64_t>(file, "count", H5T_STD_I64LE);
  EXPECT_TRUE(count_extents.empty());
  EXPECT_EQ(count, std::vector<std::int64_t>{42});
  const auto [tail_extents, tail] = read_dataset<std::uint16_t>(file, "b.bias@1-3", H5T_STD_U16LE);
  EXPECT_EQ(tail, (std::vector<std::uint16_t>{0x3f80, 0}));
  EXPECT_GE(H5Fclose(file), 0);
}

}  // namespace
}  // namespace hadal::checkpoint
