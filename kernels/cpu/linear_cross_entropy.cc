#include "kernels/linear_cross_entropy.h"

#include <algorithm>

#include "core/parallel_for.h"
#include "core/tensor.h"
#include "kernels/cpu/simd/cross_entropy.h"
#include "kernels/cpu/simd/tables.h"
#include "kernels/dispatch.h"
#include "kernels/gemm.h"
#include "kernels/op.h"

HADAL_SIMD_PICK(CrossEntropyOps, cross_entropy_ops)

namespace hadal::kernels {
namespace {

using std::int64_t;

// Rows of logits held at once: 512, the depth of one block of the weight gradient's sum, unless they pass 16 MiB.
int64_t chunk_rows(int64_t vocabulary, DType dtype) {
  const int64_t fitting = (int64_t{16} << 20) / (vocabulary * static_cast<int64_t>(size_of(dtype)));
  return std::clamp<int64_t>(fitting / 64 * 64, 64, 512);
}

void linear_cross_entropy(Stream& stream, const LinearCrossEntropy& args) {
  visit_float(args.h.dtype, [&]<class T>() {
    const auto& ops = simd::cross_entropy_ops<T>();
    const int64_t tokens = args.h.shape[0], vocabulary = args.w.shape[0];
    const bool gradient = !args.d_h.empty() || !args.d_w.empty();
    const T* weights = args.loss_weight.empty() ? nullptr : args.loss_weight.as<T>();
    const std::int32_t* targets = args.targets.as<std::int32_t>();
    std::int32_t* prediction = args.prediction.empty() ? nullptr : args.prediction.as<std::int32_t>();
    T* token_loss = args.token_loss.as<T>();
    const int64_t rows = std::min(chunk_rows(vocabulary, args.h.dtype), std::max<int64_t>(tokens, 1));
    Tensor logits = Tensor::empty({rows, vocabulary}, args.h.dtype);
    for (int64_t begin = 0; begin < tokens; begin += rows) {
      const int64_t end = std::min(begin + rows, tokens);
      const View chunk = logits.view().rows(0, end - begin);
      run(stream, Gemm{.a = args.h.rows(begin, end), .b = args.w, .c = chunk, .transpose_b = true});
      parallel_ranges(end - begin, 8, [&](int64_t first, int64_t last) {
        for (int64_t i = first; i < last; ++i) {
          const int64_t t = begin + i;
          const std::int32_t target = targets[t];
          HADAL_CHECK(target < vocabulary, "target {} of token {}, vocabulary {}", target, t, vocabulary);
          const T weight = target < 0 ? T{0} : (weights == nullptr ? T{1} : weights[t]);
          T* row = chunk.template as<T>() + i * vocabulary;
          if (weight == T{0} && prediction == nullptr) {
            token_loss[t] = 0;
            if (gradient) std::fill(row, row + vocabulary, T{0});
            continue;
          }
          const auto result = ops.row(vocabulary, row, std::max<std::int32_t>(target, 0), gradient,
                                      static_cast<T>(args.scale) * weight);
          token_loss[t] = weight == T{0} ? T{0} : result.nll;
          if (prediction != nullptr) prediction[t] = static_cast<std::int32_t>(result.prediction);
        }
      });
      if (!args.d_h.empty()) run(stream, Gemm{.a = chunk, .b = args.w, .c = args.d_h.rows(begin, end)});
      if (!args.d_w.empty()) {
        run(stream, Gemm{.a = chunk, .b = args.h.rows(begin, end), .c = args.d_w, .transpose_a = true, .beta = 1});
      }
    }
    double loss = 0;
    for (int64_t t = 0; t < tokens; ++t) {
      loss += (weights == nullptr ? 1.0 : static_cast<double>(weights[t])) * static_cast<double>(token_loss[t]);
    }
    *args.loss.as<double>() = loss;
  });
}

const RegisterCpu<LinearCrossEntropy> registered{linear_cross_entropy};

}  // namespace
}  // namespace hadal::kernels
