// Cross-entropy over a split vocabulary on CUDA: rows of logits to the terms of their softmax by one block each
// (softmax_row.cuh), the ranks' statistics to losses by one thread a row, terms to gradients piece by piece.
#include <algorithm>

#include "kernels/cuda/check.h"
#include "kernels/cuda/softmax_row.cuh"
#include "kernels/cuda/visit.h"
#include "kernels/vocab_cross_entropy.h"

namespace hadal::kernels::cuda {
namespace {

using std::int64_t;

constexpr int kThreads = 512;
constexpr std::size_t kKeepBytes = 108 * 1024;  ///< of a row in shared memory: two blocks on a multiprocessor

/// N: elements a piece; 1 where rows are not aligned.
template <class T, int N>
__global__ __launch_bounds__(kThreads) void softmax_terms_rows(int columns, int kept, T* logits, const std::int32_t* targets,
                                                               int64_t first_column, float* statistics) {
  extern __shared__ __align__(16) unsigned char shared[];
  auto* const keep = reinterpret_cast<Pack<T, N>*>(shared);
  const int64_t row = blockIdx.x;
  T* const at = logits + row * columns;
  const int64_t target = targets[row] - first_column;
  // Before the barriers after which the row is written over.
  const float target_logit = target >= 0 && target < columns ? to_float(at[target]) : 0.0f;
  SoftmaxRow seen;
  see_columns<T, N, kThreads>(seen, at, 0, columns, keep, kept);
  const SoftmaxRow found = block_merged<T, kThreads>(seen);
  if (threadIdx.x == 0) {
    float* const out = statistics + row * kNumVocabStatistics;
    out[kVocabTop] = found.top;
    out[kVocabSum] = found.sum;
    out[kVocabTargetLogit] = target_logit;
    out[kVocabPrediction] = static_cast<float>(first_column + min(found.column, columns - 1));
  }
  overwrite_columns<T, N, kThreads>(at, 0, columns, keep, kept, [=]<int Count>(Floats<Count> values, int) {
#pragma unroll
    for (int i = 0; i < Count; ++i) values.at[i] = exponential<T>(values.at[i] - found.top);
    return values;
  });
}

void softmax_terms(Stream& stream, const VocabSoftmaxTerms& args) {
  const int64_t rows = args.logits.shape[0], columns = args.logits.shape[1];
  HADAL_CHECK(rows < (int64_t{1} << 31) && columns < (int64_t{1} << 31), "logits {}", args.logits.shape.str());
  // Columns come back as f32.
  HADAL_CHECK(args.first_column + columns <= (int64_t{1} << 24), "columns to {} do not fit f32", args.first_column + columns);
  visit(args.logits.dtype, [&]<class T>() {
    auto* logits = static_cast<T*>(args.logits.data);
    const auto start = [&]<int N>() {
      const int64_t kept = std::min<int64_t>(columns / N, kKeepBytes / sizeof(Pack<T, N>));
      const std::size_t bytes = static_cast<std::size_t>(kept) * sizeof(Pack<T, N>);
      allow_shared_memory(softmax_terms_rows<T, N>, bytes + kDeclaredShared, VocabSoftmaxTerms::kName);
      softmax_terms_rows<T, N><<<static_cast<unsigned>(rows), kThreads, bytes, native(stream)>>>(
          static_cast<int>(columns), static_cast<int>(kept), logits, args.targets.as<std::int32_t>(), args.first_column,
          args.statistics.as<float>());
    };
    if (aligned16(logits, columns)) {
      start.template operator()<kPiece<T>>();
    } else {
      start.template operator()<1>();
    }
  });
  check_launch(VocabSoftmaxTerms::kName);
}

struct Losses {
  int64_t ranks, rows, rank;
  float scale;
  const float* statistics;
  const std::int32_t* targets;
  const float* loss_weight;
  float* token_loss;
  float* factor;
  std::int32_t* prediction;  ///< or null
};

constexpr int kBlock = 256;

__global__ __launch_bounds__(kBlock) void losses_of_rows(Losses l) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kBlock + threadIdx.x;
  if (row >= l.rows) return;
  const auto of = [&](int64_t rank) { return l.statistics + (rank * l.rows + row) * kNumVocabStatistics; };
  int64_t best = 0;
  for (int64_t rank = 1; rank < l.ranks; ++rank) {
    if (of(rank)[kVocabTop] > of(best)[kVocabTop]) best = rank;
  }
  const float top = of(best)[kVocabTop];
  float sum = 0, target_logit = 0;
  for (int64_t rank = 0; rank < l.ranks; ++rank) {
    sum += of(rank)[kVocabSum] * expf(of(rank)[kVocabTop] - top);
    target_logit += of(rank)[kVocabTargetLogit];
  }
  const float weight = l.targets[row] < 0 ? 0.0f : l.loss_weight[row];
  l.token_loss[row] = weight == 0.0f ? 0.0f : logf(sum) + (top - target_logit);
  l.factor[row] = weight == 0.0f ? 0.0f : l.scale * weight * expf(of(l.rank)[kVocabTop] - top) / sum;
  if (l.prediction != nullptr) l.prediction[row] = static_cast<std::int32_t>(of(best)[kVocabPrediction]);
}

void cross_entropy(Stream& stream, const VocabCrossEntropy& args) {
  const Losses losses{.ranks = args.statistics.shape[0],
                      .rows = args.statistics.shape[1],
                      .rank = args.rank,
                      .scale = static_cast<float>(args.scale),
                      .statistics = args.statistics.as<float>(),
                      .targets = args.targets.as<std::int32_t>(),
                      .loss_weight = args.loss_weight.as<float>(),
                      .token_loss = args.token_loss.as<float>(),
                      .factor = args.factor.as<float>(),
                      .prediction = args.prediction.empty() ? nullptr : args.prediction.as<std::int32_t>()};
  losses_of_rows<<<static_cast<unsigned>((losses.rows + kBlock - 1) / kBlock), kBlock, 0, native(stream)>>>(losses);
  check_launch(VocabCrossEntropy::kName);
}

constexpr int kPiecesEach = 4;  ///< of a thread

template <class T, int N>
__global__ __launch_bounds__(kBlock) void gradient_pieces(int columns, T* terms, const float* factors,
                                                          const std::int32_t* targets, const float* loss_weight, float scale,
                                                          int64_t first_column) {
  const int64_t row = blockIdx.x;
  const float factor = factors[row];
  const int32_t wanted = targets[row];
  const int64_t target = wanted < 0 ? -1 : wanted - first_column;
  const float pull = wanted < 0 ? 0.0f : scale * loss_weight[row];
  T* const at = terms + row * columns;
  const int first = static_cast<int>(blockIdx.y) * kBlock * kPiecesEach + static_cast<int>(threadIdx.x);
#pragma unroll
  for (int e = 0; e < kPiecesEach; ++e) {
    const int column = (first + e * kBlock) * N;
    if (column >= columns) return;
    Floats<N> values = load_floats<N>(at + column);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      values.at[i] *= factor;
      if (column + i == target) values.at[i] -= pull;
    }
    store_floats(at + column, values);
  }
}

void softmax_gradient(Stream& stream, const VocabSoftmaxGradient& args) {
  const int64_t rows = args.terms.shape[0], columns = args.terms.shape[1];
  HADAL_CHECK(rows < (int64_t{1} << 31) && columns < (int64_t{1} << 26), "terms {}", args.terms.shape.str());
  visit(args.terms.dtype, [&]<class T>() {
    auto* terms = static_cast<T*>(args.terms.data);
    const auto start = [&]<int N>() {
      const int64_t of_block = int64_t{kBlock} * kPiecesEach * N;
      const dim3 grid(static_cast<unsigned>(rows), static_cast<unsigned>((columns + of_block - 1) / of_block));
      gradient_pieces<T, N><<<grid, kBlock, 0, native(stream)>>>(static_cast<int>(columns), terms, args.factor.as<float>(),
                                                                 args.targets.as<std::int32_t>(), args.loss_weight.as<float>(),
                                                                 static_cast<float>(args.scale), args.first_column);
    };
    if (aligned16(terms, columns)) {
      start.template operator()<kPiece<T>>();
    } else {
      start.template operator()<1>();
    }
  });
  check_launch(VocabSoftmaxGradient::kName);
}

const RegisterCuda<VocabSoftmaxTerms> registered_terms{softmax_terms};
const RegisterCuda<VocabCrossEntropy> registered_cross_entropy{cross_entropy};
const RegisterCuda<VocabSoftmaxGradient> registered_gradient{softmax_gradient};

}  // namespace
}  // namespace hadal::kernels::cuda
