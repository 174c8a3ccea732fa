// From sampled rows to what the model reads: tokens, shifted targets of every MTP depth, and loss weights.
#pragma once

#include <vector>

#include "data/sampler.h"
#include "model/model.h"

namespace hadal::train {

/// Positions that count, over some rows: of the main loss and of each MTP depth. Depth k at position i predicts t_{i+k+1} from
/// t_{i+k}; it counts where both exist in the row, the target is not masked, and t_{i+k} is in the document of t_i
/// (spec/model.md 7).
struct ValidCounts {
  std::int64_t main = 0;
  std::vector<std::int64_t> mtp;
};
ValidCounts count_valid(const data::Batch& batch, std::int64_t mtp_depth);

/// UserError when a token or target is no id of the model: a Megatron file does not say how many ids it uses.
void check_ids(const data::Batch& batch, std::int64_t vocab_size);

/// What the weights of one global batch are made of.
struct LossScales {
  ValidCounts valid;            ///< over the whole global batch
  std::int64_t sequences = 1;   ///< of the global batch
  double mtp_weight = 0.0;      ///< lambda
};

/// Rows [begin, end) of `batch` as a micro-batch: weight 1 / valid where a position counts, 0 elsewhere. Under context parallelism the
/// tokens of `sequence`'s segments alone (null: all); what MTP reads ahead comes from the whole row. Made on the host; `dtype` is the
/// model's.
model::MicroBatch make_micro_batch(const data::Batch& batch, std::int64_t begin, std::int64_t end, const LossScales& scales, DType dtype,
                                   const nn::SequenceShard* sequence = nullptr);
/// The same on a device.
model::MicroBatch upload(Stream& stream, model::MicroBatch micro_batch, Device device);
/// `to`, on a device, becomes the same as `from`, of the same shape on the host.
void write_over(Stream& stream, const model::MicroBatch& from, model::MicroBatch& to);

}  // namespace hadal::train
