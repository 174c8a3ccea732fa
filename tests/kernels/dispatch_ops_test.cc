// Guards: the small ops around expert dispatch and split vocabularies: rows spread to their slots, the balancer's step, ids to rows of a
// share, copies between strided matrices.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/bias_update.h"
#include "kernels/copy_heads.h"
#include "kernels/local_rows.h"
#include "kernels/rows.h"
#include "tests/support/gradient_check.h"

namespace hadal::kernels {
namespace {

using test::normal_tensor;

template <class T>
Tensor tensor_of(std::initializer_list<T> values, Shape shape) {
  Tensor t = Tensor::empty(shape, kDTypeOf<T>);
  std::ranges::copy(values, t.as<T>());
  return t;
}

TEST(SpreadRowsOp, IsTheInverseOfGatherAndLeavesTheRestAlone) {
  Stream stream;
  const Tensor x = normal_tensor({3, 5}, 1), before = normal_tensor({7, 5}, 2);
  const Tensor index = tensor_of<std::int32_t>({4, 0, -1, 6, 2, 3}, {3, 2});
  Tensor y = before.clone();
  run(stream, SpreadRows{.x = x, .index = index, .y = y});
  const int source[] = {0, -1, 2, 2, 0, -1, 1};
  for (int r = 0; r < 7; ++r) {
    const double* expected = source[r] < 0 ? before.as<double>() + r * 5 : x.as<double>() + source[r] * 5;
    EXPECT_TRUE(std::equal(expected, expected + 5, y.as<double>() + r * 5)) << "row " << r;
  }
  const Tensor outside = tensor_of<std::int32_t>({4, 0, 7, 6, 2, 3}, {3, 2});
  EXPECT_THROW(run(stream, SpreadRows{.x = x, .index = outside, .y = y}), ContractError);
}

TEST(ScatterAddRowsOp, RefusesAnotherDtypeThanThatOfSums) {
  Stream stream;
  const Tensor d_y = Tensor::zeros({1, 2}, DType::kBf16), index = tensor_of<std::int32_t>({0}, {1});
  Tensor d_x = Tensor::zeros({1, 2}, DType::kBf16);
  EXPECT_THROW(run(stream, ScatterAddRows{.d_y = d_y, .index = index, .d_x = d_x}), ContractError);
}

TEST(BiasUpdateOp, FollowsTheSignOfWhatIsMissing) {
  Stream stream;
  const Tensor counts = tensor_of<std::int64_t>({5, 3, 4, 4}, {4}), uneven = tensor_of<std::int64_t>({0, 0, 1, 0}, {4});
  Tensor bias = tensor_of<float>({0.5f, 0, 0, -1}, {4});
  run(stream, BiasUpdate{.counts = counts, .bias = bias, .speed = 0.25});
  const float first[] = {0.25f, 0.25f, 0, -1};
  EXPECT_TRUE(std::ranges::equal(bias.span<float>(), first));
  run(stream, BiasUpdate{.counts = uneven, .bias = bias, .speed = 0.25});  // a mean that is no integer
  const float second[] = {0.5f, 0.5f, -0.25f, -0.75f};
  EXPECT_TRUE(std::ranges::equal(bias.span<float>(), second));
  // A step that is skipped leaves the bias as it leaves the parameters.
  for (const double norm : {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(), 4.0}) {
    const Tensor squared = tensor_of<double>({norm}, {1});
    run(stream, BiasUpdate{.counts = uneven, .bias = bias, .grad_norm_squared = squared, .speed = 0.25});
    EXPECT_EQ(bias.as<float>()[0], std::isfinite(norm) ? 0.75f : 0.5f);
  }
}

TEST(LocalRowsOp, KnowsItsShare) {
  Stream stream;
  Tensor ids = tensor_of<std::int32_t>({9, 10, 14, 15, -1}, {5});
  run(stream, LocalRows{.ids = ids, .rows = ids, .begin = 10, .end = 15});
  const std::int32_t expected[] = {-1, 0, 4, -1, -1};
  EXPECT_TRUE(std::ranges::equal(ids.span<std::int32_t>(), expected));
}

TEST(CopyHeadsOp, MovesAndAddsColumnsOfEachHead) {
  Stream stream;
  const Tensor x = normal_tensor({5, 2, 7}, 1), before = normal_tensor({4, 2, 6}, 2);
  for (const bool accumulate : {false, true}) {
    Tensor y = before.clone();
    run(stream,
        CopyHeads{
            .x = token_rows(heads_of(x.view(), 2, 7, 3, 4), 1, 3), .y = token_rows(heads_of(y.view(), 2, 6, 1, 4), 0, 3), .accumulate = accumulate});
    for (int t = 0; t < 4; ++t) {
      for (int h = 0; h < 2; ++h) {
        for (int i = 0; i < 6; ++i) {
          const double was = before.as<double>()[(t * 2 + h) * 6 + i];
          const bool inside = t < 3 && i >= 1 && i < 5;
          const double from = inside ? x.as<double>()[((t + 1) * 2 + h) * 7 + i + 2] : 0.0;
          EXPECT_EQ(y.as<double>()[(t * 2 + h) * 6 + i], inside ? (accumulate ? was + from : from) : was) << t << " " << h << " " << i;
        }
      }
    }
  }
  Tensor packed = Tensor::empty({5, 2, 7}, DType::kF64);
  run(stream, CopyHeads{.x = heads_of(x.view(), 2, 7, 0, 7), .y = heads_of(packed.view(), 2, 7, 0, 7)});
  EXPECT_TRUE(std::ranges::equal(packed.span<double>(), x.span<double>()));
  EXPECT_THROW(token_rows(heads_of(x.view(), 2, 7, 0, 7), 3, 3), ContractError);
}

}  // namespace
}  // namespace hadal::kernels
