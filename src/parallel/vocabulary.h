// Embedding and output head, whose rows (one per token id) are spread over tp: rank r holds rows [begin, end) of the V
// (spec/parallelism.md 7). Both turn rows that are sharded over tp (sequence parallelism) into something all ranks agree on.
// Shape legend: T rows of the tp group, T' = T / tp of this rank, V ids, d hidden size.
#pragma once

#include <string>

#include "comm/communicator.h"
#include "nn/parameter.h"
#include "nn/shard.h"
#include "parallel/tensor_boundary.h"

namespace hadal::parallel {

/// What is predicted from one set of rows: targets and their weights in the loss.
struct Prediction {
  Tensor inputs;   ///< I32 [T]: MTP depth k: t_{i+k}, -1 where there is none; unused by the main loss
  Tensor targets;  ///< I32 [T]
  Tensor weights;  ///< [T], accumulation dtype: 1 / valid tokens of the global batch, 0 where masked
};

/// Shares of a vocabulary need not be equal: [V r / n, V (r+1) / n).
struct VocabularyRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;
};
VocabularyRange vocabulary_range(std::int64_t vocab_size, nn::Shard shard);

class Embedding {
 public:
  /// Logical tensor `name` [V, d]. `tp` may be null.
  Embedding(std::string name, std::int64_t vocab_size, std::int64_t hidden_size, double init_std, Storage storage, comm::Communicator* tp);

  /// tokens I32 [T], -1 gives a row of zeros -> [T', d].
  Tensor forward(Stream& stream, ConstView tokens) const;
  /// Accumulates the gradient of forward; d_h [T', d].
  void backward(Stream& stream, ConstView tokens, ConstView d_h);
  nn::Parameter& weight() { return weight_; }

 private:
  /// Ids as rows of this rank's share, -1 elsewhere.
  Tensor local_rows(Stream& stream, ConstView tokens) const;

  VocabularyRange range_;
  TensorBoundary boundary_;
  nn::Parameter weight_;
};

class Head {
 public:
  Head(std::string name, std::int64_t vocab_size, std::int64_t hidden_size, double init_std, Storage storage, comm::Communicator* tp);

  struct Result {
    Tensor token_loss;  ///< [T], accumulation dtype: -log p of each target, natural log
    Tensor prediction;  ///< I32 [T]: the likeliest token, when asked for
  };
  /// Loss of predictions from rows h [T', d]: the sum of weight * -log p over them into `sum`, F64 [1], on the first tp rank alone, so
  /// that it counts once. With `d_h` [T', d] also its gradient times `scale`, and the weight's accumulates.
  Result loss(Stream& stream, ConstView h, const Prediction& prediction, double scale, View sum, View d_h, bool predict);
  /// Logits [n, V], in the accumulation dtype, of rows [n, d]; one rank only.
  Tensor logits(Stream& stream, ConstView h) const;
  nn::Parameter& weight() { return weight_; }

 private:
  Result loss_of_share(Stream& stream, ConstView h, const Prediction& prediction, double scale, View sum, View d_h, bool predict);

  comm::Communicator* tp_;
  VocabularyRange range_;
  TensorBoundary boundary_;
  nn::Parameter weight_;
};

}  // namespace hadal::parallel
