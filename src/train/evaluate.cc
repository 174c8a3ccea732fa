#include "train/evaluate.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "kernels/dispatch.h"
#include "train/micro_batch.h"

namespace hadal::train {
namespace {

/// Sums of one rank, then of all.
struct Sums {
  double nll = 0, mtp_nll = 0;
  std::int64_t tokens = 0, mtp_tokens = 0, drafts = 0, accepted = 0, bytes = 0;
  std::vector<std::int64_t> frequency;  // [V]
};

void add_rows(model::Model& model, Stream& stream, const data::Batch& batch, const tokenizer::Tokenizer* tokenizer, Sums& sums) {
  check_ids(batch, model.options().shape.vocab_size);
  const DType dtype = model.options().dtype;
  const ValidCounts valid = count_valid(batch, model.options().shape.mtp.depth);
  LossScales scales{.valid = valid, .sequences = batch.num_rows(), .mtp_weight = 0.0};
  const model::Model::Evaluation e = model.evaluate(stream, make_micro_batch(batch, 0, batch.num_rows(), scales, dtype));
  sums.nll += e.losses.main * static_cast<double>(valid.main);
  sums.tokens += valid.main;
  if (!valid.mtp.empty()) {
    sums.mtp_nll += e.losses.mtp[0] * static_cast<double>(valid.mtp[0]);
    sums.mtp_tokens += valid.mtp[0];
  }
  sums.drafts += e.drafts;
  sums.accepted += e.accepted;
  const std::uint8_t* mask = batch.loss_mask.as<std::uint8_t>();
  const std::int32_t* targets = batch.targets.as<std::int32_t>();
  for (std::int64_t i = 0; i < batch.targets.numel(); ++i) {
    if (mask[i] == 0) continue;
    ++sums.frequency[static_cast<std::size_t>(targets[i])];
    if (tokenizer != nullptr) sums.bytes += static_cast<std::int64_t>(tokenizer->token_bytes(targets[i]).size());
  }
}

void reduce(comm::Communicator& world, Sums& sums) {
  Tensor reals = Tensor::empty({2}, DType::kF64);
  Tensor counts = Tensor::empty({static_cast<std::int64_t>(sums.frequency.size()) + 5}, DType::kI64);
  double* r = reals.as<double>();
  std::int64_t* c = counts.as<std::int64_t>();
  r[0] = sums.nll;
  r[1] = sums.mtp_nll;
  const std::int64_t singles[] = {sums.tokens, sums.mtp_tokens, sums.drafts, sums.accepted, sums.bytes};
  std::ranges::copy(singles, c);
  std::ranges::copy(sums.frequency, c + 5);
  const View views[] = {reals.view(), counts.view()};
  world.all_reduce_sum(views);
  sums.nll = r[0];
  sums.mtp_nll = r[1];
  sums.tokens = c[0];
  sums.mtp_tokens = c[1];
  sums.drafts = c[2];
  sums.accepted = c[3];
  sums.bytes = c[4];
  std::copy_n(c + 5, sums.frequency.size(), sums.frequency.begin());
}

}  // namespace

double EvaluationResult::perplexity() const { return std::exp(loss); }

EvaluationResult evaluate(model::Model& model, Stream& stream, const data::Sampler& sampler, std::int64_t max_tokens, std::int64_t micro_batch,
                          comm::Communicator& world, const tokenizer::Tokenizer* tokenizer) {
  std::uint64_t epoch = 0;
  for (std::size_t s = 0; s < sampler.num_sources(); ++s) epoch += sampler.samples_per_epoch(s);
  const std::int64_t wanted = std::max<std::int64_t>(max_tokens / sampler.options().sequence_length, 1);
  const std::int64_t rows = std::min(wanted, static_cast<std::int64_t>(epoch));
  const data::RowRange share = data::rows_of_rank(rows, world.rank(), world.size());
  Sums sums;
  sums.frequency.assign(static_cast<std::size_t>(model.options().shape.vocab_size), 0);
  for (std::int64_t begin = share.begin; begin < share.end; begin += micro_batch) {
    const std::int64_t count = std::min(micro_batch, share.end - begin);
    add_rows(model, stream, sampler.batch(static_cast<std::uint64_t>(begin), count), tokenizer, sums);
  }
  reduce(world, sums);

  EvaluationResult result;
  if (sums.tokens == 0) return result;
  const double tokens = static_cast<double>(sums.tokens);
  result.tokens = sums.tokens;
  result.loss = sums.nll / tokens;
  if (sums.mtp_tokens > 0) result.mtp_loss = sums.mtp_nll / static_cast<double>(sums.mtp_tokens);
  if (sums.drafts > 0) result.acceptance = static_cast<double>(sums.accepted) / static_cast<double>(sums.drafts);
  for (const std::int64_t count : sums.frequency) {
    if (count == 0) continue;
    const double p = static_cast<double>(count) / tokens;
    result.unigram_entropy -= p * std::log(p);
  }
  result.bytes = sums.bytes;
  if (sums.bytes > 0) result.bits_per_byte = sums.nll / std::numbers::ln2 / static_cast<double>(sums.bytes);
  return result;
}

}  // namespace hadal::train
