#include "plan/stage_memory.h"

#include <algorithm>
#include <vector>

#include "plan/kernel_scratch.h"
#include "plan/layer_memory.h"

namespace hadal::plan {
namespace {

/// One rank's stage on a tape. Members as in model/stage.cc.
class Stage {
 public:
  Stage(const RankShape& shape, const model::StageContent& content, bool last) : s_(shape), content_(content), last_(last) {
    for (std::int64_t i = 0; i < content.num_layers; ++i) blocks_.push_back(block_memory(shape, content.first_layer + i));
    for (std::int64_t k = 0; k < content.num_mtp; ++k)
      modules_.push_back(block_memory(shape, shape.model.num_layers + content.first_mtp + k));
  }

  struct Module {
    Held embedding, embedding_rms, hidden, hidden_rms, projected, block_out, out_rms, d_block_out, d_projected;
    SavedMemoryPtr block;
  };
  struct Record {
    std::vector<Held> inputs, d_outputs;
    std::vector<SavedMemoryPtr> blocks;
    Held head_in, final_rms, d_normed;
    std::vector<Module> mtp;
    std::vector<Held> hidden;
    std::vector<Held> embeddings, d_mtp;
    Held told;
  };

  Held forward(Tape& tape, Held x, Record& r) const {
    Held h = content_.embedding ? embed(tape) : std::move(x);
    for (const LayerMemoryPtr& block : blocks_) {
      SavedMemoryPtr saved;
      Held next = block->forward(tape, saved);
      r.inputs.push_back(std::move(h));
      r.blocks.push_back(std::move(saved));
      h = std::move(next);
    }
    if (content_.head) {
      Held normed = tape.take(rows());
      r.final_rms = tape.take_sums(s_.token_rows);
      r.d_normed = tape.take(rows());
      r.told = loss(tape);
      r.head_in = std::move(h);
      h = std::move(normed);
    }
    for (std::size_t i = 0; i < modules_.size(); ++i) {
      Held next = run_module(tape, i, r);
      r.hidden.push_back(std::move(h));
      h = std::move(next);
    }
    return last_ ? Held() : std::move(h);
  }

  Held backward_input(Tape& tape, Held d_y, bool weights, Record& r) const {
    Held d_h = std::move(d_y);
    for (std::size_t i = modules_.size(); i-- > 0;) {
      Module& m = r.mtp[i];
      m.d_block_out = tape.take(rows());
      norm_scratch(tape, s_.token_rows, s_.model.hidden_size);
      m.d_projected = modules_[i]->backward_input(tape, *m.block);
      if (weights) {
        modules_[i]->backward_weight(tape, *m.block);
        m.block.reset();
        m.d_block_out.reset();
      }
      const Held d_normed = tape.take(rows()), d_embedding = tape.take(rows());
      Held d_hidden = tape.take(rows());
      norm_scratch(tape, s_.token_rows, s_.model.hidden_size);
      if (weights) {
        projection_weights(tape);
        m = {};
      }
      if (s_.tp > 1) tape.touch(s_.tokens * s_.model.hidden_size);
      if (i == 0) d_h = std::move(d_hidden);
    }
    if (content_.head) {
      d_h = tape.take(rows());
      norm_scratch(tape, s_.token_rows, s_.model.hidden_size);
      r.head_in.reset();
      r.d_normed.reset();
    }
    r.d_outputs.resize(blocks_.size());
    for (std::size_t i = blocks_.size(); i-- > 0;) {
      Held d_in = blocks_[i]->backward_input(tape, *r.blocks[i]);
      if (weights) {
        blocks_[i]->backward_weight(tape, *r.blocks[i]);
        r.blocks[i].reset();
        r.inputs[i].reset();
      } else {
        r.d_outputs[i] = std::move(d_h);
      }
      d_h = std::move(d_in);
    }
    if (!content_.embedding) return d_h;
    if (s_.tp > 1) tape.touch(s_.tokens * s_.model.hidden_size);
    return {};
  }

  void backward_weight(Tape& tape, Record& r) const {
    for (std::size_t i = modules_.size(); i-- > 0;) {
      modules_[i]->backward_weight(tape, *r.mtp[i].block);
      projection_weights(tape);
    }
    for (std::size_t i = blocks_.size(); i-- > 0;) blocks_[i]->backward_weight(tape, *r.blocks[i]);
  }

 private:
  std::int64_t rows() const { return s_.token_rows * s_.model.hidden_size; }

  Held embed(Tape& tape) const {
    const Held whole = s_.tp > 1 ? tape.take(s_.tokens * s_.model.hidden_size) : Held();
    return tape.take(rows());
  }

  /// Head::loss: its token_loss.
  Held loss(Tape& tape) const {
    const std::int64_t d = s_.model.hidden_size, columns = s_.vocabulary;
    Held token_loss = tape.take_sums(s_.tokens);
    if (s_.tp > 1) {
      const std::int64_t chunk = std::min<std::int64_t>(512, s_.tokens);
      const Held h = tape.take(s_.tokens * d), d_h = tape.take(s_.tokens * d);
      {
        const Held logits = tape.take(chunk * columns);
        gemm_scratch(tape, Product::kForward, chunk, columns, d);
        gemm_scratch(tape, Product::kBackwardInput, chunk, d, columns);
        gemm_scratch(tape, Product::kBackwardWeight, columns, d, chunk);
      }
      tape.take(rows());
      return token_loss;
    }
    if (!tape.cpu()) {
      head_scratch(tape, s_.tokens, columns);
      return token_loss;
    }
    const std::int64_t fitting = (std::int64_t{16} << 20) / (columns * static_cast<std::int64_t>(size_of(tape.compute())));
    const std::int64_t chunk = std::min(std::clamp<std::int64_t>(fitting / 64 * 64, 64, 512), s_.tokens);
    const Held packed = tape.take(columns * d), packed_back = tape.take(columns * d), logits = tape.take(chunk * columns);
    gemm_scratch(tape, Product::kBackwardWeight, columns, d, chunk);
    return token_loss;
  }

  Held run_module(Tape& tape, std::size_t i, Record& r) const {
    Held embedding = embed(tape);
    Module& m = r.mtp.emplace_back();
    m.embedding = tape.take(rows());
    m.embedding_rms = tape.take_sums(s_.token_rows);
    m.hidden = tape.take(rows());
    m.hidden_rms = tape.take_sums(s_.token_rows);
    m.projected = tape.take(rows());
    m.block_out = modules_[i]->forward(tape, m.block);
    Held out = tape.take(rows());
    m.out_rms = tape.take_sums(s_.token_rows);
    r.embeddings.push_back(std::move(embedding));
    r.d_mtp.push_back(tape.take(rows()));
    loss(tape);
    return out;
  }

  void projection_weights(Tape& tape) const {
    gemm_scratch(tape, Product::kBackwardWeight, s_.model.hidden_size, s_.model.hidden_size, s_.token_rows);
  }

  const RankShape& s_;
  const model::StageContent& content_;
  bool last_;
  std::vector<LayerMemoryPtr> blocks_, modules_;
};

}  // namespace

StageMemory stage_memory(const RankShape& shape, const model::StageContent& content, bool last) {
  const Stage stage(shape, content, last);
  StageMemory memory{.first = content.embedding, .last = last};
  const auto boundary = [&](Tape& tape, bool there) {
    return there ? tape.take(shape.token_rows * shape.model.hidden_size) : Held();
  };
  // Forward, then both ways of going back.
  for (const bool weights : {true, false}) {
    Tape tape(shape.formats.compute, shape.kernels, shape.threads);
    Stage::Record record;
    Held x = boundary(tape, !content.embedding);
    memory.boundary = boundary(tape, true).bytes();
    std::int64_t start = tape.live();
    tape.reset_peak();
    const Held y = stage.forward(tape, std::move(x), record);
    memory.forward_peak = tape.peak() - start;
    memory.told = record.told.bytes();
    memory.record = tape.live() - y.bytes() - memory.told;
    Held d_y = boundary(tape, !last);
    start = tape.live();
    tape.reset_peak();
    Held d_x = stage.backward_input(tape, std::move(d_y), weights, record);
    (weights ? memory.backward_peak : memory.input_peak) = tape.peak() - start;
    if (weights) continue;
    memory.record_after_input = tape.live() - y.bytes() - d_x.bytes() - memory.told;
    start = tape.live();
    tape.reset_peak();
    stage.backward_weight(tape, record);
    memory.weight_peak = tape.peak() - start;
  }
  return memory;
}

}  // namespace hadal::plan
