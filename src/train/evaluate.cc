#include "train/evaluate.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "core/copy.h"
#include "model/model.h"
#include "train/micro_batch.h"
#include "train/pipeline.h"

namespace hadal::train {
namespace {

/// Sums of one rank, then of all.
struct Sums {
  double nll = 0, mtp_nll = 0;
  std::int64_t tokens = 0, mtp_tokens = 0, drafts = 0, accepted = 0, bytes = 0;
  std::vector<std::int64_t> frequency;  // [V]
};

/// A batch of `count` rows at most and of exactly as many rows as asked for: what is missing repeats a row with nothing to predict, so
/// that ranks whose experts serve each other run equally many micro-batches.
data::Batch padded_batch(const data::Sampler& sampler, std::int64_t begin, std::int64_t count, std::int64_t rows) {
  if (count == rows) return sampler.batch(static_cast<std::uint64_t>(begin), count);
  data::Batch batch = sampler.batch(static_cast<std::uint64_t>(begin), rows);
  std::uint8_t* mask = batch.loss_mask.as<std::uint8_t>();
  const std::int64_t seq = batch.tokens.shape()[1];
  std::fill(mask + count * seq, mask + rows * seq, std::uint8_t{0});
  return batch;
}

/// The main model's choices stay with the head, drafts with the first MTP module: on other ranks of the pipeline, perhaps, and of chunks
/// of sequences. Agreement over whole sequences, on the rank that has the drafts and speaks for its sequences; 0 elsewhere.
model::Agreement agreement(RunModel& run, Stream& stream, const model::MicroBatch& whole, model::Stage::Outcome& outcome, int head_rank, int draft_rank) {
  constexpr int kTag = 1 << 15;  // apart from those of the schedule
  const int pp_rank = static_cast<int>(run.place().pp_rank);
  const nn::SequenceShard* sequence = run.groups().layer_groups().context;
  const std::int64_t seq = sequence == nullptr ? whole.seq : whole.seq / run.layout().grid.cp();
  for (Tensor* ids : {&outcome.choice, &outcome.draft}) {
    if (ids->defined()) *ids = to_host(stream, *ids);
  }
  if (head_rank != draft_rank) {
    if (pp_rank == head_rank) run.pipeline().send(outcome.choice, draft_rank, kTag);
    if (pp_rank == draft_rank) {
      outcome.choice = Tensor::empty({whole.batch * seq}, DType::kI32);
      run.pipeline().receive(outcome.choice, head_rank, kTag);
    }
  }
  if (pp_rank != draft_rank) return {};
  if (sequence != nullptr) {
    for (Tensor* ids : {&outcome.choice, &outcome.draft}) {
      Stream host;
      Tensor gathered = Tensor::empty({whole.batch * whole.seq}, DType::kI32);
      sequence->gather(host, whole.batch, ids->view().reshape({ids->numel(), 1}), gathered.view().reshape({gathered.numel(), 1}));
      *ids = std::move(gathered);
    }
  }
  if (run.place().cp_rank != 0 || run.place().tp_rank != 0) return {};
  return model::agreement(whole, outcome.choice, outcome.draft);
}

/// Pipeline rank that runs the stage for which `holds` is true, for this micro-batch.
template <class Holds>
int rank_with(const plan::Layout& layout, int micro_batch, Holds&& holds) {
  for (std::size_t s = 0; s < layout.stages.size(); ++s) {
    if (holds(layout.stages[s])) return layout.placement.locate(static_cast<int>(s), micro_batch).rank;
  }
  return -1;
}

void add_rows(RunModel& run, const data::Batch& batch, const ValidCounts& valid, const tokenizer::Tokenizer* tokenizer, Sums& sums) {
  if (!run.speaks_for_rows()) return;
  sums.tokens += valid.main;
  if (!valid.mtp.empty()) sums.mtp_tokens += valid.mtp[0];
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

EvaluationResult evaluate(RunModel& run, Stream& stream, const data::Sampler& sampler, std::int64_t max_tokens, std::int64_t micro_batch,
                          const tokenizer::Tokenizer* tokenizer) {
  const plan::Layout& layout = run.layout();
  const ModelSection& shape = run.options().shape;
  std::uint64_t epoch = 0;
  for (std::size_t s = 0; s < sampler.num_sources(); ++s) epoch += sampler.samples_per_epoch(s);
  const std::int64_t wanted = std::max<std::int64_t>(max_tokens / sampler.options().sequence_length, 1);
  const std::int64_t rows = std::min(wanted, static_cast<std::int64_t>(epoch));
  const int dp = static_cast<int>(layout.grid.dp());
  const data::RowRange share = data::rows_of_rank(rows, static_cast<int>(run.place().dp_rank), dp);
  const data::RowRange largest = data::rows_of_rank(rows, 0, dp);
  const std::int64_t padded = layout.experts_span_dp() ? largest.end - largest.begin : share.end - share.begin;
  Sums sums;
  sums.frequency.assign(static_cast<std::size_t>(shape.vocab_size), 0);
  Pipeline pipeline(run);
  for (std::int64_t begin = 0; begin < padded; begin += micro_batch) {
    const std::int64_t size = std::min(micro_batch, padded - begin);
    const data::Batch batch = padded_batch(sampler, share.begin + begin, std::min(size, share.end - share.begin - begin), size);
    check_ids(batch, shape.vocab_size);
    const ValidCounts valid = count_valid(batch, shape.mtp.depth);
    const LossScales scales{.valid = valid, .sequences = size, .mtp_weight = 0.0};
    std::vector<model::MicroBatch> micro_batches;
    micro_batches.push_back(upload(
        stream, make_micro_batch(batch, 0, size, scales, run.options().dtype, run.groups().layer_groups().context), run.options().device));
    auto [outcome, losses] = std::move(pipeline.evaluate(stream, micro_batches).front());
    sums.nll += losses.main * static_cast<double>(valid.main);
    add_rows(run, batch, valid, tokenizer, sums);
    if (shape.mtp.depth == 0) continue;
    sums.mtp_nll += losses.mtp[0] * static_cast<double>(valid.mtp[0]);
    const int head_rank = rank_with(layout, 0, [](const model::StageContent& stage) { return stage.head; });
    const int draft_rank = rank_with(layout, 0, [](const model::StageContent& stage) { return stage.num_mtp > 0 && stage.first_mtp == 0; });
    const model::MicroBatch whole = make_micro_batch(batch, 0, size, scales, run.options().dtype);
    const model::Agreement agreed = agreement(run, stream, whole, outcome, head_rank, draft_rank);
    sums.drafts += agreed.drafts;
    sums.accepted += agreed.accepted;
  }
  reduce(run.world(), sums);

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
