#include "kernels/linear_cross_entropy.h"

#include <algorithm>

#include "core/parallel_for.h"
#include "core/tensor.h"
#include "kernels/cpu/gemm_blocks.h"
#include "kernels/cpu/gemm_tile.h"
#include "kernels/cpu/simd/cross_entropy.h"
#include "kernels/dispatch.h"
#include "kernels/gemm.h"
#include "kernels/loss_sum.h"
#include "kernels/op.h"

namespace hadal::kernels {
namespace {

using cpu::Transpose;
using std::int64_t;

// Strips of one task at most: enough for a block of packed weights, once in the second-level cache, to be used many times.
constexpr int64_t kTaskStrips = 10;

// Rows of logits held at once: 512, the depth of one block of the weight gradient's sum, unless they pass 16 MiB.
int64_t chunk_rows(int64_t vocabulary, DType dtype) {
  const int64_t fitting = (int64_t{16} << 20) / (vocabulary * static_cast<int64_t>(size_of(dtype)));
  return std::clamp<int64_t>(fitting / 64 * 64, 64, 512);
}

/// op(w)[k, n] packed once for all chunks.
template <class T>
Tensor packed_weight(const ConstView& w, Transpose transpose) {
  const int64_t n = w.shape[transpose == Transpose::kYes ? 0 : 1], k = w.shape[transpose == Transpose::kYes ? 1 : 0];
  Tensor packed = Tensor::empty({cpu::packed_size<T>(n, k)}, w.dtype);
  parallel_ranges(cpu::pack_units<T>(transpose, n, k), 16, [&](int64_t first, int64_t last) {
    cpu::pack_part(transpose, n, k, w.as<T>(), w.shape[1], packed.as<T>(), first, last);
  });
  return packed;
}

/// Rows [begin, end) of the chunk at token `offset`: logits to losses, and to their gradient when that is wanted.
template <class T>
void softmax_rows(const LinearCrossEntropy& args, int64_t offset, int64_t begin, int64_t end, bool gradient, T* logits) {
  const auto& ops = simd::cross_entropy_ops<T>();
  const int64_t vocabulary = args.w.shape[0];
  const std::int32_t* targets = args.targets.as<std::int32_t>();
  for (int64_t i = begin; i < end; ++i) {
    const int64_t t = offset + i;
    const std::int32_t target = targets[t];
    HADAL_CHECK(target < vocabulary, "target {} of token {}, vocabulary {}", target, t, vocabulary);
    const T weight = target < 0 ? T{0} : (args.loss_weight.empty() ? T{1} : args.loss_weight.as<T>()[t]);
    const auto result = ops.row(vocabulary, logits + i * vocabulary, std::max<std::int32_t>(target, 0), !args.prediction.empty(),
                                gradient, static_cast<T>(args.scale) * weight);
    args.token_loss.as<T>()[t] = weight == T{0} ? T{0} : result.nll;
    if (!args.prediction.empty()) args.prediction.as<std::int32_t>()[t] = static_cast<std::int32_t>(result.prediction);
  }
}

template <class T>
void compute(Stream& stream, const LinearCrossEntropy& args) {
  const int64_t tokens = args.h.shape[0], width = args.h.shape[1], vocabulary = args.w.shape[0];
  const bool want_h = !args.d_h.empty(), want_w = !args.d_w.empty();
  const int64_t rows = std::min(chunk_rows(vocabulary, args.h.dtype), std::max<int64_t>(tokens, 1));
  const Tensor w_forward = packed_weight<T>(args.w, Transpose::kYes);
  const Tensor w_backward = want_h ? packed_weight<T>(args.w, Transpose::kNo) : Tensor();
  Tensor chunk = Tensor::empty({rows, vocabulary}, args.h.dtype);
  T* logits = chunk.as<T>();
  for (int64_t offset = 0; offset < tokens; offset += rows) {
    const int64_t count = std::min(rows, tokens - offset);
    const cpu::Strips strips(count, simd::gemm_micro<T>().rows);
    const cpu::BlockedProduct<T> forward{
        Transpose::kNo,    count, vocabulary, width,     T{1}, args.h.as<T>() + offset * width, width,
        w_forward.as<T>(), T{0},  logits,     vocabulary};
    const cpu::Pieces pieces(strips.count, 2 * num_threads(), kTaskStrips);
    parallel_for(pieces.count, [&](int64_t task) {
      const int64_t first = pieces.begin(task), last = pieces.begin(task + 1);
      cpu::multiply_block(forward, strips, first, last, 0, cpu::panel_count<T>(vocabulary));
      softmax_rows(args, offset, strips.begin(first), strips.begin(last), want_h || want_w, logits);
      if (!want_h) return;
      const cpu::BlockedProduct<T> backward{Transpose::kNo, count,
                                            width,          vocabulary,
                                            T{1},           logits,
                                            vocabulary,     w_backward.as<T>(),
                                            T{0},           args.d_h.as<T>() + offset * width,
                                            width};
      cpu::multiply_block(backward, strips, first, last, 0, cpu::panel_count<T>(width));
    });
    if (want_w) {
      run(stream, Gemm{.a = chunk.view().rows(0, count),
                       .b = args.h.rows(offset, offset + count),
                       .c = args.d_w,
                       .transpose_a = true,
                       .beta = args.add_to_d_w || offset > 0 ? 1.0 : 0.0});
    }
  }
  run(stream, LossSum{.token_loss = args.token_loss, .loss_weight = args.loss_weight, .loss = args.loss});
}

void linear_cross_entropy(Stream& stream, const LinearCrossEntropy& args) {
  visit_float(args.h.dtype, [&]<class T>() { compute<T>(stream, args); });
}

const RegisterCpu<LinearCrossEntropy> registered{linear_cross_entropy};

}  // namespace
}  // namespace hadal::kernels
