#include "train/micro_batch.h"

#include <span>
#include <vector>

#include "core/copy.h"
#include "kernels/dispatch.h"

namespace hadal::train {
namespace {

/// One row of a batch.
struct Row {
  const std::int32_t* tokens;
  const std::int32_t* targets;
  const std::uint8_t* mask;
  const std::int32_t* documents;
  std::int64_t seq;

  bool counts(std::int64_t i, std::int64_t depth) const {
    if (depth == 0) return mask[i] != 0;
    return i + depth < seq && mask[i + depth] != 0 && documents[i + depth] == documents[i];
  }
  /// t_{i+depth+1} where the row has it.
  std::int32_t target(std::int64_t i, std::int64_t depth) const { return i + depth < seq ? targets[i + depth] : -1; }
  std::int32_t input(std::int64_t i, std::int64_t depth) const { return i + depth < seq ? tokens[i + depth] : -1; }
};

Row row_of(const data::Batch& batch, std::int64_t r) {
  const std::int64_t seq = batch.tokens.shape()[1];
  return {batch.tokens.as<std::int32_t>() + r * seq, batch.targets.as<std::int32_t>() + r * seq, batch.loss_mask.as<std::uint8_t>() + r * seq,
          batch.document_ids.as<std::int32_t>() + r * seq, seq};
}

std::int64_t count_depth(const data::Batch& batch, std::int64_t depth) {
  std::int64_t count = 0;
  for (std::int64_t r = 0; r < batch.num_rows(); ++r) {
    const Row row = row_of(batch, r);
    for (std::int64_t i = 0; i < row.seq; ++i) count += row.counts(i, depth);
  }
  return count;
}

/// Positions of a sequence that lie here, in the order of the rows.
std::vector<std::int64_t> positions_here(std::int64_t seq, const nn::SequenceShard* sequence) {
  const nn::Segment whole{0, seq};
  const std::span<const nn::Segment> segments = sequence == nullptr ? std::span(&whole, 1) : sequence->segments();
  std::vector<std::int64_t> positions;
  positions.reserve(static_cast<std::size_t>(seq));
  for (const nn::Segment& segment : segments) {
    for (std::int64_t i = 0; i < segment.length; ++i) positions.push_back(segment.position + i);
  }
  return positions;
}

model::Prediction make_prediction(const data::Batch& batch, std::int64_t begin, std::int64_t end, const std::vector<std::int64_t>& positions,
                                  std::int64_t depth, std::int64_t valid, DType weight_dtype) {
  const std::int64_t tokens = (end - begin) * static_cast<std::int64_t>(positions.size());
  model::Prediction p;
  if (depth > 0) p.inputs = Tensor::empty({tokens}, DType::kI32);
  p.targets = Tensor::empty({tokens}, DType::kI32);
  p.weights = Tensor::empty({tokens}, weight_dtype);
  const double weight = valid > 0 ? 1.0 / static_cast<double>(valid) : 0.0;
  // The device waits for this between two steps: no checks inside the loops.
  kernels::visit_float(weight_dtype, [&]<class T>() {
    std::int32_t* input = depth > 0 ? p.inputs.as<std::int32_t>() : nullptr;
    std::int32_t* target = p.targets.as<std::int32_t>();
    T* to = p.weights.as<T>();
    for (std::int64_t r = begin; r < end; ++r) {
      const Row row = row_of(batch, r);
      for (const std::int64_t i : positions) {
        if (depth > 0) *input++ = row.input(i, depth);
        *target++ = row.target(i, depth);
        *to++ = row.counts(i, depth) ? static_cast<T>(weight) : T{0};
      }
    }
  });
  return p;
}

/// All tensors of a micro-batch, in one order.
template <class MicroBatch, class Visit>
void for_each_tensor(MicroBatch& micro_batch, Visit visit) {
  const auto of = [&](auto& prediction) {
    visit(prediction.inputs);
    visit(prediction.targets);
    visit(prediction.weights);
  };
  visit(micro_batch.tokens);
  of(micro_batch.main);
  for (auto& prediction : micro_batch.mtp) of(prediction);
}

}  // namespace

ValidCounts count_valid(const data::Batch& batch, std::int64_t mtp_depth) {
  ValidCounts counts{.main = count_depth(batch, 0), .mtp = {}};
  for (std::int64_t k = 1; k <= mtp_depth; ++k) counts.mtp.push_back(count_depth(batch, k));
  return counts;
}

void check_ids(const data::Batch& batch, std::int64_t vocab_size) {
  for (const Tensor* ids : {&batch.tokens, &batch.targets}) {
    for (const std::int32_t id : ids->span<std::int32_t>()) {
      if (id >= 0 && id < vocab_size) continue;
      throw UserError("the token files hold id {}, model.vocab_size is {}; set it above the largest id (`hadal data inspect` shows it)", id, vocab_size);
    }
  }
}

model::MicroBatch make_micro_batch(const data::Batch& batch, std::int64_t begin, std::int64_t end, const LossScales& scales, DType dtype,
                                   const nn::SequenceShard* sequence) {
  const std::vector<std::int64_t> positions = positions_here(batch.tokens.shape()[1], sequence);
  model::MicroBatch micro;
  micro.batch = end - begin;
  micro.seq = static_cast<std::int64_t>(positions.size());
  micro.sequence_scale = 1.0 / static_cast<double>(scales.sequences);
  micro.mtp_weight = scales.mtp_weight;
  micro.tokens = Tensor::empty({micro.batch * micro.seq}, DType::kI32);
  std::int32_t* token = micro.tokens.as<std::int32_t>();
  for (std::int64_t r = begin; r < end; ++r) {
    const Row row = row_of(batch, r);
    for (const std::int64_t i : positions) *token++ = row.tokens[i];
  }
  micro.main = make_prediction(batch, begin, end, positions, 0, scales.valid.main, accumulation_dtype(dtype));
  for (std::size_t k = 0; k < scales.valid.mtp.size(); ++k) {
    micro.mtp.push_back(make_prediction(batch, begin, end, positions, static_cast<std::int64_t>(k) + 1, scales.valid.mtp[k],
                                        accumulation_dtype(dtype)));
  }
  return micro;
}

model::MicroBatch upload(Stream& stream, model::MicroBatch micro_batch, Device device) {
  for_each_tensor(micro_batch, [&](Tensor& tensor) {
    if (tensor.defined()) tensor = moved_to(stream, std::move(tensor), device);
  });
  return micro_batch;
}

void write_over(Stream& stream, const model::MicroBatch& from, model::MicroBatch& to) {
  std::vector<const Tensor*> sources;
  for_each_tensor(from, [&](const Tensor& tensor) { sources.push_back(&tensor); });
  auto source = sources.begin();
  for_each_tensor(to, [&](Tensor& tensor) {
    if (tensor.defined()) copy(stream, **source, tensor);
    ++source;
  });
}

}  // namespace hadal::train
