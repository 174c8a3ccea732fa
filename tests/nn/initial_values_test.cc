// Guards: initial values are what they have always been, bit for bit: hashes taken when each value was made by itself, f64 against
// Random::normal; whole tensors, slices by either dim, pieces that begin anywhere, an index above 2^32.
#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "core/rng.h"
#include "nn/parameter.h"

namespace hadal::nn {
namespace {

constexpr std::uint64_t kSeed = 1234;

Parameter normals(Shape shape, DType dtype, double std, std::vector<LogicalPart> parts) {
  return {"w", shape, Storage(dtype), {.init = Init::normal(std)}, std::move(parts)};
}

template <class T>
std::vector<T> values_of(const Parameter& parameter, std::int64_t begin, std::int64_t end) {
  Tensor values = Tensor::empty({end - begin}, kDTypeOf<T>);
  parameter.initial_values(kSeed, begin, values);
  return {values.span<T>().begin(), values.span<T>().end()};
}

template <class T>
std::uint64_t hash_of(const std::vector<T>& values) {
  return stream_of({reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)});
}

TEST(InitialValues, AreThoseOfEachElementByItself) {
  const Parameter whole = normals({301, 1037}, DType::kF32, 0.006, {whole_part("a.weight", {301, 1037}, 0)});
  EXPECT_EQ(hash_of(values_of<float>(whole, 0, whole.numel())), 9047652010508004556u);
  EXPECT_EQ(hash_of(values_of<float>(whole, 12345, 99999)), 13118363287301352134u);
  const Parameter rows = normals({40, 1037}, DType::kF32, 1.0, {sliced_part("a.weight", {301, 1037}, 0, 77, 40, 0)});
  EXPECT_EQ(hash_of(values_of<float>(rows, 0, rows.numel())), 14381464023710463337u);
  const Parameter columns = normals({301, 333}, DType::kF32, 0.02, {sliced_part("a.weight", {301, 1037}, 1, 704, 333, 0)});
  EXPECT_EQ(hash_of(values_of<float>(columns, 5, columns.numel() - 3)), 4236502003624861507u);
  const Parameter narrow = normals({301, 3}, DType::kF32, 0.02, {sliced_part("a.weight", {301, 1037}, 1, 511, 3, 0)});
  EXPECT_EQ(hash_of(values_of<float>(narrow, 0, narrow.numel())), 16223857147705437019u);
  // Two logical tensors in one: a fused gate and up projection.
  const Parameter fused = normals({2, 50, 20}, DType::kF32, 0.02, {whole_part("gate", {50, 20}, 0), whole_part("up", {50, 20}, 1000)});
  EXPECT_EQ(hash_of(values_of<float>(fused, 13, 1999)), 15412897789991387282u);
  const Parameter large = normals({2, 70000}, DType::kF32, 0.02, {sliced_part("b.weight", {70000, 70000}, 0, 61356, 2, 0)});
  EXPECT_EQ(hash_of(values_of<float>(large, 0, large.numel())), 18094160225970917857u);
}

TEST(InitialValues, InF64AreStdTimesNormal) {
  const Parameter columns = normals({31, 333}, DType::kF64, 0.02, {sliced_part("a.weight", {31, 1037}, 1, 704, 333, 0)});
  const std::vector<double> values = values_of<double>(columns, 0, columns.numel());
  const Random random(kSeed, RandomPurpose::kInit, stream_of("a.weight"));
  for (std::int64_t i = 0; i < columns.numel(); ++i) {
    EXPECT_EQ(values[static_cast<std::size_t>(i)], 0.02 * random.normal(static_cast<std::uint64_t>(i / 333 * 1037 + 704 + i % 333))) << i;
  }
}

TEST(InitialValues, OfABf16ParameterAreRoundedFromF32) {
  Parameter narrow = normals({64, 65}, DType::kBf16, 0.02, {whole_part("a.weight", {64, 65}, 0)});
  const Parameter wide = normals({64, 65}, DType::kF32, 0.02, {whole_part("a.weight", {64, 65}, 0)});
  narrow.initialize(kSeed);
  const std::vector<float> values = values_of<float>(wide, 0, wide.numel());
  for (std::int64_t i = 0; i < wide.numel(); ++i) {
    EXPECT_EQ(to_float(std::as_const(narrow).value().as<Bf16>()[i]), to_float(to_bf16(values[static_cast<std::size_t>(i)]))) << i;
  }
}

}  // namespace
}  // namespace hadal::nn
