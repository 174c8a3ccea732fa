#include "kernels/vocab_cross_entropy.h"

#include <algorithm>
#include <cmath>

#include "core/parallel_for.h"
#include "kernels/cpu/simd/cross_entropy.h"
#include "kernels/dispatch.h"

namespace hadal::kernels {
namespace {

constexpr std::int64_t kRowGrain = 4;

void softmax_terms(Stream&, const VocabSoftmaxTerms& args) {
  visit_float(args.logits.dtype, [&]<class T>() {
    const auto& ops = simd::cross_entropy_ops<T>();
    const std::int64_t columns = args.logits.shape[1];
    T* const logits = args.logits.as<T>();
    T* const statistics = args.statistics.as<T>();
    const std::int32_t* const targets = args.targets.as<std::int32_t>();
    parallel_ranges(args.logits.shape[0], kRowGrain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        T* const row = logits + r * columns;
        T* const out = statistics + r * kNumVocabStatistics;
        const std::int64_t target = targets[r] - args.first_column;
        out[kVocabTargetLogit] = target >= 0 && target < columns ? row[target] : T{0};
        const auto terms = ops.terms(columns, row);
        out[kVocabTop] = terms.top;
        out[kVocabSum] = terms.sum;
        out[kVocabPrediction] = static_cast<T>(args.first_column + terms.prediction);
      }
    });
  });
}

void cross_entropy(Stream&, const VocabCrossEntropy& args) {
  visit_float(args.statistics.dtype, [&]<class T>() {
    const std::int64_t ranks = args.statistics.shape[0], rows = args.statistics.shape[1];
    const std::int32_t* const targets = args.targets.as<std::int32_t>();
    const T* const weights = args.loss_weight.as<T>();
    for (std::int64_t r = 0; r < rows; ++r) {
      const auto of = [&](std::int64_t rank, VocabStatistic what) {
        return args.statistics.as<T>()[(rank * rows + r) * kNumVocabStatistics + what];
      };
      std::int64_t best = 0;
      for (std::int64_t rank = 1; rank < ranks; ++rank) {
        if (of(rank, kVocabTop) > of(best, kVocabTop)) best = rank;
      }
      const T top = of(best, kVocabTop);
      T sum = 0, target_logit = 0;
      for (std::int64_t rank = 0; rank < ranks; ++rank) {
        sum += of(rank, kVocabSum) * std::exp(of(rank, kVocabTop) - top);
        target_logit += of(rank, kVocabTargetLogit);
      }
      const T weight = targets[r] < 0 ? T{0} : weights[r];
      args.token_loss.as<T>()[r] = weight == T{0} ? T{0} : std::log(sum) + (top - target_logit);
      args.factor.as<T>()[r] = static_cast<T>(args.scale) * weight * std::exp(of(args.rank, kVocabTop) - top) / sum;
      if (!args.prediction.empty()) args.prediction.as<std::int32_t>()[r] = static_cast<std::int32_t>(of(best, kVocabPrediction));
    }
  });
}

void softmax_gradient(Stream&, const VocabSoftmaxGradient& args) {
  visit_float(args.terms.dtype, [&]<class T>() {
    const std::int64_t columns = args.terms.shape[1];
    T* const terms = args.terms.as<T>();
    parallel_ranges(args.terms.shape[0], kRowGrain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        T* const row = terms + r * columns;
        const T factor = args.factor.as<T>()[r];
        for (std::int64_t i = 0; i < columns; ++i) row[i] *= factor;
        const std::int32_t target = args.targets.as<std::int32_t>()[r];
        const std::int64_t column = target - args.first_column;
        if (target >= 0 && column >= 0 && column < columns) row[column] -= static_cast<T>(args.scale) * args.loss_weight.as<T>()[r];
      }
    });
  });
}

const RegisterCpu<VocabSoftmaxTerms> registered_terms{softmax_terms};
const RegisterCpu<VocabCrossEntropy> registered_cross_entropy{cross_entropy};
const RegisterCpu<VocabSoftmaxGradient> registered_gradient{softmax_gradient};

}  // namespace
}  // namespace hadal::kernels
