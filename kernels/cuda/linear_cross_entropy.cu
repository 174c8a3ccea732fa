// Linear + cross-entropy on CUDA: chunks of rows, each three products (cuBLASLt) and between them one kernel that reads the
// chunk's logits once and writes their gradient over them.
//
// A chunk is as large as 508 MiB allow (cuda_scratch.h): its weight gradient reads and writes all of d_w in f32, so that fewer chunks mean less
// traffic (V 102400, d 2048: 1.7 GB for each). Logits are held in the dtype of h, so in bf16 they and their gradients are rounded
// as any other activation; everything between is f32.
#include <algorithm>

#include "kernels/cuda/check.h"
#include "kernels/cuda/cross_entropy_rows.cuh"
#include "kernels/cuda/visit.h"
#include "kernels/cuda_scratch.h"
#include "kernels/gemm.h"
#include "kernels/linear_cross_entropy.h"
#include "kernels/loss_sum.h"
#include "kernels/op.h"

namespace hadal::kernels::cuda {
namespace {

using std::int64_t;

constexpr int kThreads = 1024, kFewThreads = 128;  ///< of a block; the latter for small vocabularies
constexpr int kFewColumns = 4096;
constexpr int64_t kKeptPieces = 216 * 1024 / 16;  ///< of a row in shared memory; a multiprocessor has 227 KiB for its blocks

template <class T>
struct Chunk {
  View logits;     ///< [rows, V]
  int64_t stride;  ///< elements from row to row: V rounded up, so that every row is aligned
};

template <class T>
void softmax_chunk(Stream& stream, const LinearCrossEntropy& args, const Chunk<T>& chunk, int64_t offset) {
  const int64_t columns = args.w.shape[0];
  const CrossEntropyRows<T> rows{
      .rows = chunk.logits.shape[0],
      .columns = static_cast<int>(columns),
      .kept = static_cast<int>(std::min(columns / kPiece<T>, kKeptPieces)),
      .stride = chunk.stride,
      .scale = static_cast<float>(args.scale),
      .gradient = !args.d_h.empty() || !args.d_w.empty(),
      .logits = static_cast<T*>(chunk.logits.data),
      .targets = args.targets.as<std::int32_t>() + offset,
      .loss_weight = args.loss_weight.empty() ? nullptr : args.loss_weight.as<float>() + offset,
      .token_loss = args.token_loss.as<float>() + offset,
      .prediction = args.prediction.empty() ? nullptr : args.prediction.as<std::int32_t>() + offset,
  };
  const auto start = [&](auto kernel, int threads) {
    const std::size_t bytes = static_cast<std::size_t>(rows.kept) * 16;
    allow_shared_memory(kernel, bytes + kDeclaredShared, LinearCrossEntropy::kName);
    int resident = 0;
    check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, kernel, threads, bytes),
          "cudaOccupancyMaxActiveBlocksPerMultiprocessor");
    const int64_t blocks = std::min<int64_t>(rows.rows, int64_t{num_multiprocessors(stream.device().index)} * resident);
    kernel<<<static_cast<unsigned>(blocks), threads, bytes, native(stream)>>>(rows);
  };
  if (columns <= kFewColumns) {
    start(cross_entropy_rows<T, kFewThreads>, kFewThreads);
  } else {
    start(cross_entropy_rows<T, kThreads>, kThreads);
  }
  check_launch(LinearCrossEntropy::kName);
}

template <class T>
void compute(Stream& stream, const LinearCrossEntropy& args) {
  const int64_t tokens = args.h.shape[0], columns = args.w.shape[0];
  const int64_t stride = head_row_elements(columns, args.h.dtype), rows = head_chunk_rows(tokens, stride * static_cast<int64_t>(sizeof(T)));
  Tensor memory = Tensor::empty({rows, stride}, args.h.dtype, stream.device());
  for (int64_t offset = 0; offset < tokens; offset += rows) {
    const int64_t end = std::min(offset + rows, tokens);
    const View logits{memory.view().data, args.h.dtype, {end - offset, columns}, stream.device()};
    const ConstView h = args.h.rows(offset, end);
    run(stream, Gemm{.a = h, .b = args.w, .c = logits, .transpose_b = true, .ldc = stride});
    softmax_chunk(stream, args, Chunk<T>{logits, stride}, offset);
    if (!args.d_h.empty()) run(stream, Gemm{.a = logits, .b = args.w, .c = args.d_h.rows(offset, end), .lda = stride});
    const double beta = args.add_to_d_w || offset > 0 ? 1 : 0;
    if (!args.d_w.empty()) run(stream, Gemm{.a = logits, .b = h, .c = args.d_w, .transpose_a = true, .beta = beta, .lda = stride});
  }
}

void linear_cross_entropy(Stream& stream, const LinearCrossEntropy& args) {
  HADAL_CHECK(args.w.shape[0] > 0 && args.w.shape[0] < (int64_t{1} << 31), "vocabulary of {}", args.w.shape[0]);
  if (args.h.shape[0] > 0) visit(args.h.dtype, [&]<class T>() { compute<T>(stream, args); });
  run(stream, LossSum{.token_loss = args.token_loss, .loss_weight = args.loss_weight, .loss = args.loss});
}

const RegisterCuda<LinearCrossEntropy> registered{linear_cross_entropy};

}  // namespace
}  // namespace hadal::kernels::cuda
