// Guards: the dense product on CUDA against the CPU in f64: every form, odd, tiny and large sizes, slices of wider matrices with odd
// leading dimensions and starts, alpha and beta, no terms at all, and each pairing of dtypes.
#include "kernels/gemm.h"

#include <gtest/gtest.h>

#include <utility>
#include <vector>

#include "tests/cuda/twin.h"
#include "kernels/linear.h"

namespace hadal::test {
namespace {

using kernels::Gemm;

struct Case {
  std::int64_t m, n, k;
  bool ta = false, tb = false;
  double alpha = 1, beta = 0;
  std::int64_t pad = 0;    ///< elements between rows beyond the matrix's own
  std::int64_t start = 0;  ///< elements before the first one
};

/// Storage of a matrix [rows, columns] that lies in rows of columns + pad elements, `start` elements in.
struct Matrix {
  std::int64_t rows, columns, pad, start;
  Shape storage() const { return {rows * (columns + pad) + start}; }
  std::int64_t ld() const { return columns + pad; }
  View of(View all) const {
    return {static_cast<std::byte*>(all.data) + static_cast<std::size_t>(start) * size_of(all.dtype), all.dtype, Shape({rows, columns}), all.device};
  }
};

void check(const Case& t, DType dtype, DType out) {
  SCOPED_TRACE(testing::Message() << name_of(dtype) << " to " << name_of(out) << ", m " << t.m << " n " << t.n << " k " << t.k << " ta " << t.ta << " tb " << t.tb
                                  << " alpha " << t.alpha << " beta " << t.beta << " pad " << t.pad << " start " << t.start);
  const Matrix ma{t.ta ? t.k : t.m, t.ta ? t.m : t.k, t.pad, t.start}, mb{t.tb ? t.n : t.k, t.tb ? t.k : t.n, t.pad, t.start};
  const Matrix mc{t.m, t.n, t.pad, t.start};
  Twin a = Twin::normal(ma.storage(), dtype, 1), b = Twin::normal(mb.storage(), dtype, 2);
  // What lies between the rows of c is the same on both sides from the start, and has to stay so.
  Twin c = t.beta == 0 && t.pad + t.start == 0 ? Twin::output(mc.storage(), out) : Twin::normal(mc.storage(), out, 3);
  run_on_both({&a, &b}, {&c}, [&](Stream& stream, auto side) {
    run(stream, Gemm{.a = ma.of(side(a)),
                     .b = mb.of(side(b)),
                     .c = mc.of(side(c)),
                     .transpose_a = t.ta,
                     .transpose_b = t.tb,
                     .alpha = t.alpha,
                     .beta = t.beta,
                     .lda = ma.ld(),
                     .ldb = mb.ld(),
                     .ldc = mc.ld()});
  });
  // Some of cuBLASLt's kernels round the product to bf16 before they add c (kernels/gemm.h): one rounding more.
  const double added = out == DType::kBf16 && t.beta != 0 ? tolerance_of(out) : 0;
  EXPECT_TRUE(c.agrees(tolerance_of(out, t.k) + added));
}

void check_dtypes(const Case& t) {
  check(t, DType::kF32, DType::kF32);
  check(t, DType::kBf16, DType::kBf16);
  check(t, DType::kBf16, DType::kF32);
}

constexpr std::pair<bool, bool> kForms[] = {{false, false}, {false, true}, {true, false}, {true, true}};

TEST(CudaGemm, EveryFormAndSize) {
  const std::int64_t sizes[][3] = {{1, 1, 1}, {1, 7, 3}, {1, 64, 128}, {2, 33, 65}, {5, 5, 5}, {64, 64, 64}, {63, 96, 127}, {128, 80, 1}, {61, 130, 700}, {257, 65, 33}};
  int turn = 0;
  for (const auto& size : sizes) {
    for (const auto& [ta, tb] : kForms) {
      const double alphas[] = {1, -0.5, 1, 2}, betas[] = {0, 1, 0.25, 0};
      check_dtypes({size[0], size[1], size[2], ta, tb, alphas[turn % 4], betas[turn % 4]});
      turn += 5;
    }
  }
}

TEST(CudaGemm, Large) {
  for (const auto& [ta, tb] : kForms) check_dtypes({384, 520, 1200, ta, tb, 1, ta ? 1.0 : 0.0});
  check_dtypes({1, 2050, 1500, false, true});
  check_dtypes({8, 16, 9000, true, false, 1, 1});
}

// Alignments of 2, 4, 8 and 16 bytes, of the rows and of the first element.
TEST(CudaGemm, SlicesOfWiderMatrices) {
  for (const auto& [ta, tb] : kForms) {
    for (const std::int64_t pad : {1, 2, 4, 8}) {
      check_dtypes({48, 40, 72, ta, tb, 1, 1, pad, 0});
      check_dtypes({48, 40, 72, ta, tb, 1, 0, pad, pad});
      check_dtypes({33, 31, 35, ta, tb, 1, 0, pad, 0});
    }
  }
}

TEST(CudaGemm, NoTerms) {
  check_dtypes({6, 9, 0, false, false, 1, 0});
  check_dtypes({6, 9, 0, false, true, 1, 1, 3});
  check_dtypes({6, 9, 0, true, false, 1, 0.5, 2});
}

TEST(CudaGemm, NothingToDo) {
  check_dtypes({0, 5, 3});
  check_dtypes({7, 0, 3});
}

// The three products of a linear layer as a bf16 model has them.
TEST(CudaGemm, LinearLayer) {
  const std::int64_t tokens = 130, in = 96, out = 72;
  const DType bf16 = DType::kBf16, f32 = DType::kF32;
  Twin x = Twin::normal({tokens, in}, bf16, 1), w = Twin::normal({out, in}, bf16, 2), d_y = Twin::normal({tokens, out}, bf16, 3);
  Twin y = Twin::output({tokens, out}, bf16), logits = Twin::output({tokens, out}, f32), d_x = Twin::output({tokens, in}, bf16);
  Twin d_w = Twin::normal({out, in}, f32, 4);
  run_on_both({&x, &w, &d_y}, {&y, &logits, &d_x, &d_w}, [&](Stream& stream, auto side) {
    kernels::linear_forward(stream, side(x), side(w), side(y));
    kernels::linear_forward(stream, side(x), side(w), side(logits));
    kernels::linear_backward_input(stream, side(d_y), side(w), side(d_x));
    kernels::linear_backward_weight(stream, side(d_y), side(x), side(d_w));
  });
  EXPECT_TRUE(y.agrees(tolerance_of(bf16, in)));
  EXPECT_TRUE(logits.agrees(tolerance_of(f32, in)));
  EXPECT_TRUE(d_x.agrees(tolerance_of(bf16, out)));
  EXPECT_TRUE(d_w.agrees(tolerance_of(f32, tokens)));
}

TEST(CudaGemm, RefusesDtypesThatDoNotPair) {
  Tensor a = Tensor::zeros({3, 4}, DType::kF32, kGpu), b = Tensor::zeros({4, 5}, DType::kF32, kGpu), c = Tensor::zeros({3, 5}, DType::kBf16, kGpu);
  Stream stream = stream_of(kGpu);
  EXPECT_THROW(run(stream, Gemm{.a = a, .b = b, .c = c}), ContractError);
}

}  // namespace
}  // namespace hadal::test
