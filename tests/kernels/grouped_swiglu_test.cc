// Guards: a grouped product with SwiGLU behind it has the bits of the two ops on the CPU; rows behind the last expert's are neither used nor
// written; mismatched shapes and ends behind the rows are refused.
#include "kernels/grouped_swiglu.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <limits>

#include "kernels/grouped_gemm.h"
#include "kernels/swiglu.h"
#include "tests/kernels/random_tensor.h"

namespace hadal::kernels {
namespace {

constexpr std::int64_t kExperts = 4, kIn = 24, kWidth = 20, kRows = 45, kSpare = 3;

/// The rows behind kRows are not numbers.
template <class T>
Tensor spoilt_rows(std::int64_t width, std::uint64_t seed) {
  Tensor tensor = random_tensor<T>({kRows + kSpare, width}, seed);
  std::ranges::fill(tensor.span<T>().subspan(static_cast<std::size_t>(kRows * width)), std::numeric_limits<T>::quiet_NaN());
  return tensor;
}

Tensor offsets() {
  Tensor result = Tensor::empty({kExperts + 1}, DType::kI64);
  std::ranges::copy(std::initializer_list<std::int64_t>{0, 7, 7, 40, kRows}, result.as<std::int64_t>());
  return result;
}

bool same(const ConstView& a, const ConstView& b) { return a.bytes() == b.bytes() && std::memcmp(a.data, b.data, a.bytes()) == 0; }

template <class T>
class GroupedSwiglu : public testing::Test {};
using Floats = testing::Types<float, double>;
TYPED_TEST_SUITE(GroupedSwiglu, Floats);

TYPED_TEST(GroupedSwiglu, HasTheBitsOfTheTwoOps) {
  using T = TypeParam;
  Stream stream;
  const Tensor ends = offsets(), x = spoilt_rows<T>(kIn, 1), w = random_tensor<T>({kExperts, 2 * kWidth, kIn}, 2), all_weights = spoilt_rows<T>(1, 3);
  for (const bool weighted : {false, true}) {
    const ConstView row_weight = weighted ? all_weights.view().reshape({kRows + kSpare}) : ConstView();
    const ConstView used_weight = weighted ? row_weight.rows(0, kRows) : row_weight;
    Tensor gate_up = random_tensor<T>({kRows + kSpare, 2 * kWidth}, 6), h = random_tensor<T>({kRows + kSpare, kWidth}, 7);
    Tensor gate_up_apart = gate_up.clone(), h_apart = h.clone();
    run(stream, GroupedSwigluForward{.x = x, .offsets = ends, .w = w, .row_weight = row_weight, .gate_up = gate_up, .h = h});
    const View used = gate_up_apart.view().rows(0, kRows);
    run(stream, GroupedGemmForward{.x = x.view().rows(0, kRows), .offsets = ends, .w = w, .y = used});
    run(stream, SwigluForward{.gate_up = used, .row_weight = used_weight, .h = h_apart.view().rows(0, kRows)});
    EXPECT_TRUE(same(gate_up.view(), gate_up_apart.view()));
    EXPECT_TRUE(same(h.view(), h_apart.view()));
  }
}

TEST(GroupedSwigluChecks, RefuseWhatDoesNotFit) {
  Stream stream;
  const Tensor ends = offsets(), w = random_tensor<float>({kExperts, 2 * kWidth, kIn}, 2), short_x = random_tensor<float>({kRows - 1, kIn}, 1);
  const Tensor weight = random_tensor<float>({kRows + 1}, 3), x = random_tensor<float>({kRows, kIn}, 1);
  Tensor gate_up = Tensor::empty({kRows, 2 * kWidth}, DType::kF32), h = Tensor::empty({kRows, kWidth}, DType::kF32),
         narrow = Tensor::empty({kRows, kWidth - 1}, DType::kF32);
  Tensor short_gate_up = Tensor::empty({kRows - 1, 2 * kWidth}, DType::kF32), short_h = Tensor::empty({kRows - 1, kWidth}, DType::kF32);
  EXPECT_THROW(run(stream, GroupedSwigluForward{.x = x, .offsets = ends, .w = w, .row_weight = {}, .gate_up = gate_up, .h = narrow}), ContractError);
  EXPECT_THROW(run(stream, GroupedSwigluForward{.x = x, .offsets = ends, .w = w, .row_weight = weight, .gate_up = gate_up, .h = h}), ContractError);
  EXPECT_THROW(run(stream, GroupedSwigluForward{.x = short_x, .offsets = ends, .w = w, .row_weight = {}, .gate_up = short_gate_up, .h = short_h}),
               ContractError);
}

}  // namespace
}  // namespace hadal::kernels
