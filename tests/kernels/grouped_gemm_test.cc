// Guards: every expert's rows meet that expert's weights, empty and tiny groups included; weights accumulate, or are overwritten
// whatever was there; guard elements; the same bits for any thread count, and the same bits as one dense product per expert.
#include "kernels/grouped_gemm.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

#include "core/parallel_for.h"
#include "kernels/linear.h"
#include "tests/kernels/random_tensor.h"

namespace hadal::kernels {
namespace {

template <class T>
struct Results {
  Tensor y, d_x, d_w;
};

bool same(const Tensor& a, const Tensor& b) {
  return a.bytes() == b.bytes() && std::memcmp(a.view().data, b.view().data, a.bytes()) == 0;
}

template <class T>
void check(const std::vector<std::int64_t>& sizes, std::int64_t in, std::int64_t out) {
  const auto experts = static_cast<std::int64_t>(sizes.size());
  Tensor offsets = Tensor::zeros({experts + 1}, DType::kI64);
  for (std::size_t e = 0; e < sizes.size(); ++e) offsets.as<std::int64_t>()[e + 1] = offsets.as<std::int64_t>()[e] + sizes[e];
  const std::int64_t rows = offsets.as<std::int64_t>()[experts];
  const Tensor x = random_tensor<T>({rows, in}, 1), w = random_tensor<T>({experts, out, in}, 2),
               d_y = random_tensor<T>({rows, out}, 3);
  const Tensor d_w0 = random_tensor<T>({experts, out, in}, 4);
  Stream stream;
  const auto grouped = [&] {
    Results<T> r{random_tensor<T>({rows + 1, out}, 5), random_tensor<T>({rows + 1, in}, 6), d_w0.clone()};
    run(stream, GroupedGemmForward{.x = x, .offsets = offsets, .w = w, .y = r.y.view().rows(0, rows)});
    run(stream, GroupedGemmBackwardInput{.d_y = d_y, .offsets = offsets, .w = w, .d_x = r.d_x.view().rows(0, rows)});
    run(stream, GroupedGemmBackwardWeight{.d_y = d_y, .x = x, .offsets = offsets, .d_w = r.d_w});
    return r;
  };
  Results<T> dense{random_tensor<T>({rows + 1, out}, 5), random_tensor<T>({rows + 1, in}, 6), d_w0.clone()};
  for (std::int64_t e = 0; e < experts; ++e) {
    const std::int64_t begin = offsets.as<std::int64_t>()[e], end = offsets.as<std::int64_t>()[e + 1];
    const ConstView weight = w.view().rows(e, e + 1).reshape({out, in});
    linear_forward(stream, x.view().rows(begin, end), weight, dense.y.view().rows(begin, end));
    linear_backward_input(stream, d_y.view().rows(begin, end), weight, dense.d_x.view().rows(begin, end));
    linear_backward_weight(stream, d_y.view().rows(begin, end), x.view().rows(begin, end),
                           dense.d_w.view().rows(e, e + 1).reshape({out, in}));
  }
  const int threads = num_threads();
  for (int count = 1; count <= 3; ++count) {
    set_num_threads(count);
    const Results<T> r = grouped();
    EXPECT_TRUE(same(r.y, dense.y)) << count;
    EXPECT_TRUE(same(r.d_x, dense.d_x)) << count;
    EXPECT_TRUE(same(r.d_w, dense.d_w)) << count;
  }
  set_num_threads(threads);
}

/// What is there before does not matter, NaN included; experts without rows get zeros.
template <class T>
void check_overwriting(const std::vector<std::int64_t>& ends, std::int64_t in, std::int64_t out) {
  const std::int64_t experts = std::ssize(ends) - 1, rows = ends.back();
  Tensor offsets = Tensor::empty({experts + 1}, DType::kI64);
  std::ranges::copy(ends, offsets.as<std::int64_t>());
  const Tensor x = random_tensor<T>({rows, in}, 1), d_y = random_tensor<T>({rows, out}, 2);
  Tensor added = Tensor::zeros({experts, out, in}, kDTypeOf<T>), set = Tensor::empty({experts, out, in}, kDTypeOf<T>);
  for (T& value : set.span<T>()) value = std::numeric_limits<T>::quiet_NaN();
  Stream stream;
  run(stream, GroupedGemmBackwardWeight{.d_y = d_y, .x = x, .offsets = offsets, .d_w = added});
  run(stream, GroupedGemmBackwardWeight{.d_y = d_y, .x = x, .offsets = offsets, .d_w = set, .add = false});
  EXPECT_TRUE(same(added, set));
}

TEST(GroupedGemm, OverwritesWeightGradientsWhereAsked) {
  check_overwriting<float>({0, 5, 5, 6, 39, 41, 105, 105}, 24, 40);
  check_overwriting<double>({0, 300, 1000, 1020}, 50, 70);
  check_overwriting<double>({0, 0, 0}, 8, 8);
}

TEST(GroupedGemm, EqualsOneProductPerExpert) {
  check<float>({5, 0, 1, 33, 2, 64, 0}, 24, 40);
  check<double>({5, 0, 1, 33, 2, 64, 0}, 24, 40);
  check<float>({300, 700, 20}, 50, 70);
  check<double>({0, 0}, 8, 8);
}

TEST(GroupedGemm, LeavesRowsPastTheLastOffsetAlone) {
  const std::int64_t in = 24, out = 40;
  Tensor offsets = Tensor::empty({4}, DType::kI64);
  std::ranges::copy(std::vector<std::int64_t>{0, 5, 5, 38}, offsets.as<std::int64_t>());
  Tensor x = random_tensor<double>({50, in}, 1), d_y = random_tensor<double>({50, out}, 2);
  const Tensor w = random_tensor<double>({3, out, in}, 3), before = random_tensor<double>({50, out}, 4);
  for (Tensor* rows : {&x, &d_y}) {
    for (double& value : rows->view().rows(38, 50).span<double>()) value = std::numeric_limits<double>::quiet_NaN();
  }
  Tensor y = before.clone(), d_x = Tensor::empty({50, in}, DType::kF64), d_w = Tensor::zeros({3, out, in}, DType::kF64);
  Tensor y_all = Tensor::empty({38, out}, DType::kF64), d_w_all = Tensor::zeros({3, out, in}, DType::kF64);
  Stream stream;
  run(stream, GroupedGemmForward{.x = x, .offsets = offsets, .w = w, .y = y});
  run(stream, GroupedGemmBackwardInput{.d_y = d_y, .offsets = offsets, .w = w, .d_x = d_x});
  run(stream, GroupedGemmBackwardWeight{.d_y = d_y, .x = x, .offsets = offsets, .d_w = d_w});
  run(stream, GroupedGemmForward{.x = x.view().rows(0, 38), .offsets = offsets, .w = w, .y = y_all});
  run(stream, GroupedGemmBackwardWeight{.d_y = d_y.view().rows(0, 38), .x = x.view().rows(0, 38), .offsets = offsets, .d_w = d_w_all});
  EXPECT_TRUE(std::ranges::equal(y.view().rows(0, 38).span<double>(), y_all.span<double>()));
  EXPECT_TRUE(std::ranges::equal(y.view().rows(38, 50).span<double>(), before.view().rows(38, 50).span<double>()));
  EXPECT_TRUE(same(d_w, d_w_all));
}

TEST(GroupedGemm, RefusesOffsetsThatFall) {
  Tensor offsets = Tensor::zeros({3}, DType::kI64);
  offsets.as<std::int64_t>()[1] = 5;
  offsets.as<std::int64_t>()[2] = 4;
  const Tensor x = random_tensor<float>({4, 3}, 1), w = random_tensor<float>({2, 5, 3}, 2);
  Tensor y = Tensor::zeros({4, 5}, DType::kF32);
  Stream stream;
  EXPECT_THROW(run(stream, GroupedGemmForward{.x = x, .offsets = offsets, .w = w, .y = y}), ContractError);
  offsets.as<std::int64_t>()[2] = 5;  // more rows than there are
  EXPECT_THROW(run(stream, GroupedGemmForward{.x = x, .offsets = offsets, .w = w, .y = y}), ContractError);
}

}  // namespace
}  // namespace hadal::kernels
