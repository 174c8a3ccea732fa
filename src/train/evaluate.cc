#include "train/evaluate.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>
#include <vector>

#include "comm/position.h"
#include "core/copy.h"
#include "model/model.h"
#include "train/micro_batch.h"
#include "train/pipeline.h"

namespace hadal::train {
namespace {

/// Micro-batches that run through a pipeline one behind the other, per stage of it: a fifth of the time is bubble at most, and what is
/// held does not grow with the text.
constexpr std::int64_t kTogetherPerStage = 4;

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

/// Pipeline rank that runs the stage for which `holds` is true, for this micro-batch of `placement`.
template <class Holds>
int rank_with(const plan::Layout& layout, const schedule::Placement& placement, int micro_batch, Holds&& holds) {
  for (std::size_t s = 0; s < layout.stages.size(); ++s) {
    if (holds(layout.stages[s])) return placement.locate(static_cast<int>(s), micro_batch).rank;
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

/// One micro-batch and its rows.
struct Piece {
  data::Batch rows;
  ValidCounts valid;
  LossScales scales;
};

/// The sums of this rank over the share of a data-parallel place.
class Evaluation {
 public:
  Evaluation(RunModel& run, Stream& stream, const tokenizer::Tokenizer* tokenizer) : run_(run), stream_(stream), tokenizer_(tokenizer), pipeline_(run) {
    sums_.frequency.assign(static_cast<std::size_t>(run.options().shape.vocab_size), 0);
  }

  /// The micro-batches follow each other through the pipeline; all of their inputs are held at once.
  void add(std::vector<Piece> pieces) {
    std::vector<model::MicroBatch> micro_batches;
    for (const Piece& piece : pieces) {
      model::MicroBatch made =
          make_micro_batch(piece.rows, 0, piece.rows.num_rows(), piece.scales, run_.options().dtype, run_.groups().layer_groups().context);
      micro_batches.push_back(upload(stream_, std::move(made), run_.options().device));
    }
    std::vector<Pipeline::Evaluation> ended = pipeline_.evaluate(stream_, micro_batches);
    const schedule::Placement placement = schedule::placement_of(run_.layout().request(static_cast<std::int64_t>(pieces.size())));
    for (std::size_t i = 0; i < pieces.size(); ++i) add(pieces[i], ended[i], placement, static_cast<int>(i));
  }

  /// The mirrored stages of dualpipe let every other micro-batch end on another rank: sums by micro-batch first, then in their order,
  /// have the same bits whichever rank that was.
  Sums finish() {
    if (!nll_.empty()) {
      Tensor nll = Tensor::empty({static_cast<std::int64_t>(nll_.size())}, DType::kF64);
      std::ranges::copy(nll_, nll.as<double>());
      run_.pipeline().all_reduce_sum(nll.view());
      std::copy_n(nll.as<double>(), nll_.size(), nll_.begin());
    }
    if (run_.place().pp_rank != 0) return std::move(sums_);
    for (std::size_t i = 0; i < nll_.size(); i += 2) {
      sums_.nll += nll_[i];
      sums_.mtp_nll += nll_[i + 1];
    }
    return std::move(sums_);
  }

 private:
  void add(const Piece& piece, Pipeline::Evaluation& ended, const schedule::Placement& placement, int micro_batch) {
    const bool mtp = !piece.valid.mtp.empty();
    nll_.push_back(ended.losses.main * static_cast<double>(piece.valid.main));
    nll_.push_back(mtp ? ended.losses.mtp[0] * static_cast<double>(piece.valid.mtp[0]) : 0.0);
    add_rows(run_, piece.rows, piece.valid, tokenizer_, sums_);
    if (!mtp) return;
    const plan::Layout& layout = run_.layout();
    const comm::Position position("drafts against choices", micro_batch, static_cast<int>(run_.options().shape.num_layers));
    const int head_rank = rank_with(layout, placement, micro_batch, [](const model::StageContent& stage) { return stage.head; });
    const int draft_rank = rank_with(layout, placement, micro_batch, [](const model::StageContent& s) { return s.num_mtp > 0 && s.first_mtp == 0; });
    const model::MicroBatch whole = make_micro_batch(piece.rows, 0, piece.rows.num_rows(), piece.scales, run_.options().dtype);
    const model::Agreement agreed = agreement(run_, stream_, whole, ended.outcome, head_rank, draft_rank);
    sums_.drafts += agreed.drafts;
    sums_.accepted += agreed.accepted;
  }

  RunModel& run_;
  Stream& stream_;
  const tokenizer::Tokenizer* tokenizer_;
  Pipeline pipeline_;
  Sums sums_;
  std::vector<double> nll_;  ///< of the pieces that ended here, main and MTP by turns; 0 of the others
};

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
  const std::size_t together = layout.grid.pp() == 1 ? 1 : static_cast<std::size_t>(kTogetherPerStage * layout.grid.pp());
  Evaluation evaluation(run, stream, tokenizer);
  std::vector<Piece> pieces;
  for (std::int64_t begin = 0; begin < padded; begin += micro_batch) {
    const std::int64_t size = std::min(micro_batch, padded - begin);
    Piece piece{.rows = padded_batch(sampler, share.begin + begin, std::min(size, share.end - share.begin - begin), size), .valid = {}, .scales = {}};
    check_ids(piece.rows, shape.vocab_size);
    piece.valid = count_valid(piece.rows, shape.mtp.depth);
    piece.scales = {.valid = piece.valid, .sequences = size, .mtp_weight = 0.0};
    pieces.push_back(std::move(piece));
    if (pieces.size() == together || begin + micro_batch >= padded) evaluation.add(std::exchange(pieces, {}));
  }
  Sums sums = evaluation.finish();
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
