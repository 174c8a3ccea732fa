// The part of a model that one pipeline stage holds: a run of consecutive pieces of the chain of model/stage_layout.h, with the
// layers' shares of this rank. Whole models are the one-stage case.
// Shape legend: B sequences, T = B * s rows of the tp group (s tokens of each sequence lie here), T' = T / tp of this rank, d hidden
// size, D MTP depth. What stages hand on is [T', d].
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "model/losses.h"
#include "model/mtp_module.h"
#include "model/stage_layout.h"
#include "parallel/vocabulary.h"

namespace hadal::model {

using parallel::Prediction;

/// One micro-batch as the model reads it, on the model's device. Under context parallelism its rows are those that lie here.
struct MicroBatch {
  std::int64_t batch = 1;
  std::int64_t seq = 1;         ///< s
  double sequence_scale = 1.0;  ///< 1 / sequences of the global batch (balance loss)
  double mtp_weight = 0.0;      ///< lambda
  Tensor tokens;                ///< I32 [T]
  Prediction main;
  std::vector<Prediction> mtp;  ///< depth 1 .. D
};

/// Embedding and head of a rank: every stage of the rank that needs one uses the same.
class SharedTables {
 public:
  SharedTables(const ModelOptions& model, const parallel::LayerGroups& groups) : model_(model), groups_(groups) {}

  std::shared_ptr<parallel::Embedding> embedding();
  std::shared_ptr<parallel::Head> head();
  /// 0 for the embedding's weight, 1 for the head's, 2 for any other parameter.
  int order_of(const nn::Parameter& parameter) const;

 private:
  ModelOptions model_;
  parallel::LayerGroups groups_;
  std::shared_ptr<parallel::Embedding> embedding_;
  std::shared_ptr<parallel::Head> head_;
};

class Stage {
 public:
  Stage(const ModelOptions& options, const StageContent& content, const parallel::LayerGroups& groups, SharedTables& tables);
  ~Stage();

  /// What a micro-batch needs from forward to backward_weight; owned by the caller, since several are in flight.
  struct Record;
  struct RecordDeleter {
    void operator()(Record* record) const;
  };
  using RecordPtr = std::unique_ptr<Record, RecordDeleter>;

  /// What a forward pass tells beside its output.
  struct Outcome {
    View losses{};      ///< F64 [1 + D], of the caller (LossTable::row): the pieces here write theirs
    Tensor token_loss;  ///< [T], the head's: main -log p of each target, natural log
    Tensor choice;      ///< I32 [T], the head's own next tokens; evaluation only
    Tensor draft;       ///< I32 [T], MTP depth 1's; evaluation only
  };

  /// forward() or backward_input() of one micro-batch, to be run segment by segment, each once. Stays where it was made.
  struct Pass {
    SegmentList list;
    Tensor rows;       ///< [T', d], forward or gradient: what the next segment reads; at the end what is handed on
  };
  using PassPtr = std::unique_ptr<Pass>;

  /// Given with the stage's last micro-batch of a step: called with the parameters of each layer once their gradients are complete
  /// here. Embedding and head, which other stages of the rank may use too, are never among them.
  using Complete = std::function<void(const nn::ParameterList&)>;

  /// x [T', d] of the stage before (undefined for the first) -> what the next one reads (undefined for the last: `last`).
  /// `record`: filled for backward; null evaluates. `m` stays alive and unchanged until backward is done.
  Tensor forward(Stream& stream, const MicroBatch& m, Tensor x, bool last, RecordPtr* record, Outcome& outcome);
  /// d_y of what was handed on (undefined for the last stage) -> d_x (undefined for the first). With `weights`, each layer's weight
  /// gradients follow at once and its memory is freed.
  Tensor backward_input(Stream& stream, Record& record, Tensor d_y, bool weights, const Complete* complete = nullptr);
  /// What backward_input without `weights` left to do.
  void backward_weight(Stream& stream, Record& record, const Complete* complete = nullptr);
  /// The same as passes; what they are given outlives them. A last stage's forward leaves rows behind that nobody needs.
  PassPtr forward_pass(Stream& stream, const MicroBatch& m, Tensor x, RecordPtr* record, Outcome& outcome);
  PassPtr backward_pass(Stream& stream, Record& record, Tensor d_y, bool weights, const Complete* complete = nullptr);

  /// Parameters and buffers of the pieces here in a fixed order; tables that are here for MTP alone included.
  nn::ParameterList parameters();
  /// MoE layers in order; each with its place in the model, layers first, MTP modules after.
  struct PlacedMoe {
    std::int64_t layer_idx;
    nn::MoeLayer* layer;
  };
  std::vector<PlacedMoe> moe_layers();
  /// nn::Attention::hold_selection of every layer: gradient checks need frozen block choices.
  void hold_selection(bool hold);
  const StageContent& content() const { return content_; }

  // The pieces, for decoding with a whole model.
  parallel::Embedding& embedding() { return *embedding_; }
  parallel::Head& head() { return *head_; }
  std::vector<std::unique_ptr<Block>>& blocks() { return blocks_; }
  nn::RmsNorm& final_norm() { return *final_norm_; }
  std::vector<std::unique_ptr<MtpModule>>& mtp() { return mtp_; }
  nn::Context context(Stream& stream, const MicroBatch& m) const;
  /// The context of MTP module `k` (0-based in the model): the last k + 1 positions stand for no token.
  static nn::Context mtp_context(const nn::Context& ctx, std::int64_t k);

 private:
  /// Layer index in the model, as in names, of what stands here: MTP modules follow the layers.
  int layer_of_block(std::size_t i) const;
  int layer_of_mtp(std::size_t i) const;
  void run_head(nn::Context& ctx, const MicroBatch& m, Tensor& rows, Record* r, Outcome& outcome);
  void add_mtp(Pass& pass, const nn::Context& ctx, const MicroBatch& m, std::int64_t i, Record* r, Outcome& outcome);
  /// Of MTP module i here; the gradient of the last one's output comes from the next stage. -> gradient of the module's input.
  void add_mtp_backward(Pass& pass, const nn::Context& ctx, Record& r, std::int64_t i, bool weights, const Complete* complete);

  ModelOptions options_;
  StageContent content_;
  parallel::LayerGroups groups_;
  std::shared_ptr<const nn::RopeTable> rope_;
  std::shared_ptr<parallel::Embedding> embedding_;  ///< where the content needs it
  std::vector<std::unique_ptr<Block>> blocks_;
  std::unique_ptr<nn::RmsNorm> final_norm_;         ///< with the head
  std::shared_ptr<parallel::Head> head_;            ///< where the content needs it
  std::vector<std::unique_ptr<MtpModule>> mtp_;
};

}  // namespace hadal::model
