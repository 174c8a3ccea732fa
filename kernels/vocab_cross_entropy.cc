#include "kernels/vocab_cross_entropy.h"

namespace hadal::kernels {

void run(Stream& stream, const VocabSoftmaxTerms& args) {
  const std::int64_t rows = args.logits.shape[0];
  HADAL_CHECK(args.targets.numel() == rows && args.statistics.numel() == rows * kNumVocabStatistics && args.logits.shape[1] > 0,
              "logits {}, targets {}, statistics {}", args.logits.shape.str(), args.targets.shape.str(), args.statistics.shape.str());
  HADAL_CHECK(args.statistics.dtype == accumulation_dtype(args.logits.dtype), "logits {}, statistics {}", name_of(args.logits.dtype),
              name_of(args.statistics.dtype));
  if (rows == 0) return;
  launch(stream, args);
}

void run(Stream& stream, const VocabCrossEntropy& args) {
  const std::int64_t rows = args.targets.numel();
  HADAL_CHECK(args.statistics.shape.rank() == 3 && args.statistics.shape[1] == rows && args.statistics.shape[2] == kNumVocabStatistics,
              "statistics {} of {} rows", args.statistics.shape.str(), rows);
  HADAL_CHECK(args.rank >= 0 && args.rank < args.statistics.shape[0], "rank {} of {}", args.rank, args.statistics.shape[0]);
  HADAL_CHECK(args.loss_weight.numel() == rows && args.token_loss.numel() == rows && args.factor.numel() == rows,
              "{} rows, loss_weight {}, token_loss {}, factor {}", rows, args.loss_weight.shape.str(), args.token_loss.shape.str(),
              args.factor.shape.str());
  const DType dtype = args.statistics.dtype;
  HADAL_CHECK(args.loss_weight.dtype == dtype && args.token_loss.dtype == dtype && args.factor.dtype == dtype,
              "statistics {}, loss_weight {}, token_loss {}, factor {}", name_of(dtype), name_of(args.loss_weight.dtype),
              name_of(args.token_loss.dtype), name_of(args.factor.dtype));
  HADAL_CHECK(args.prediction.empty() || (args.prediction.numel() == rows && args.prediction.dtype == DType::kI32), "prediction {} {}",
              name_of(args.prediction.dtype), args.prediction.shape.str());
  if (rows == 0) return;
  launch(stream, args);
}

void run(Stream& stream, const VocabSoftmaxGradient& args) {
  const std::int64_t rows = args.terms.shape[0];
  HADAL_CHECK(args.factor.numel() == rows && args.targets.numel() == rows && args.loss_weight.numel() == rows,
              "terms {}, factor {}, targets {}", args.terms.shape.str(), args.factor.shape.str(), args.targets.shape.str());
  const DType dtype = accumulation_dtype(args.terms.dtype);
  HADAL_CHECK(args.factor.dtype == dtype && args.loss_weight.dtype == dtype, "terms {}, factor {}, loss_weight {}",
              name_of(args.terms.dtype), name_of(args.factor.dtype), name_of(args.loss_weight.dtype));
  if (args.terms.empty()) return;
  launch(stream, args);
}

}  // namespace hadal::kernels
