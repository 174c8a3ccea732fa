#include "plan/layer_memory.h"

#include <algorithm>

#include "model/layer_options.h"
#include "plan/kernel_scratch.h"

namespace hadal::plan {
namespace {

class FeedForward final : public LayerMemory {
 public:
  FeedForward(const RankShape& shape, std::int64_t width, std::int64_t rows)
      : d_(shape.model.hidden_size), width_(width), rows_(rows) {}

  Held forward(Tape& tape, SavedMemoryPtr& saved) const override {
    auto s = std::make_unique<Saved>();
    s->gate_up = tape.take(rows_ * 2 * width_);
    s->h = tape.take(rows_ * width_);
    Held y = tape.take(rows_ * d_);
    gemm_scratch(tape, Product::kForward, rows_, 2 * width_, d_);
    gemm_scratch(tape, Product::kForward, rows_, d_, width_);
    saved = std::move(s);
    return y;
  }
  Held backward_input(Tape& tape, SavedMemory&) const override {
    const Held d_h = tape.take(rows_ * width_);
    gemm_scratch(tape, Product::kBackwardInput, rows_, width_, d_);
    Held d_x = tape.take(rows_ * d_);
    gemm_scratch(tape, Product::kBackwardInput, rows_, d_, 2 * width_);
    return d_x;
  }
  void backward_weight(Tape& tape, SavedMemory&) const override {
    gemm_scratch(tape, Product::kBackwardWeight, d_, width_, rows_);
    gemm_scratch(tape, Product::kBackwardWeight, 2 * width_, d_, rows_);
  }

 private:
  struct Saved : SavedMemory {
    Held gate_up, h;
  };
  std::int64_t d_, width_, rows_;
};

class Borders final : public LayerMemory {
 public:
  Borders(const RankShape& shape, LayerMemoryPtr inner) : shape_(shape), inner_(std::move(inner)) {}

  Held forward(Tape& tape, SavedMemoryPtr& saved) const override {
    auto s = std::make_unique<Saved>();
    s->x = tape.take(whole());
    Held y = inner_->forward(tape, s->inner);
    saved = std::move(s);
    return tape.take(shard());
  }
  Held backward_input(Tape& tape, SavedMemory& saved) const override {
    auto& s = static_cast<Saved&>(saved);
    s.d_y = tape.take(whole());
    const Held d_x = inner_->backward_input(tape, *s.inner);
    return tape.take(shard());
  }
  void backward_weight(Tape& tape, SavedMemory& saved) const override {
    inner_->backward_weight(tape, *static_cast<Saved&>(saved).inner);
  }

 private:
  struct Saved : SavedMemory {
    Held x, d_y;
    SavedMemoryPtr inner;
  };
  std::int64_t whole() const { return shape_.tokens * shape_.model.hidden_size; }
  std::int64_t shard() const { return shape_.token_rows * shape_.model.hidden_size; }

  const RankShape& shape_;
  LayerMemoryPtr inner_;
};

class Block final : public LayerMemory {
 public:
  Block(const RankShape& shape, bool sparse, bool moe)
      : shape_(shape), attention_(between_borders(shape, attention_memory(shape, sparse))) {
    ffn_ = moe ? moe_memory(shape)
               : between_borders(shape, feed_forward_memory(shape, shape.model.intermediate_size / shape.tp, shape.tokens));
  }

  Held forward(Tape& tape, SavedMemoryPtr& saved) const override {
    auto s = std::make_unique<Saved>();
    norm(tape, s->attention_in, s->attention_rms);
    s->middle = attention_->forward(tape, s->attention);
    norm(tape, s->ffn_in, s->ffn_rms);
    Held out = ffn_->forward(tape, s->ffn);
    saved = std::move(s);
    return out;
  }
  Held backward_input(Tape& tape, SavedMemory& saved) const override {
    auto& s = static_cast<Saved&>(saved);
    const Held d_ffn_in = ffn_->backward_input(tape, *s.ffn);
    s.d_middle = tape.take(rows());
    norm_scratch(tape, shape_.token_rows, shape_.model.hidden_size);
    const Held d_attention_in = attention_->backward_input(tape, *s.attention);
    Held d_h = tape.take(rows());
    norm_scratch(tape, shape_.token_rows, shape_.model.hidden_size);
    return d_h;
  }
  void backward_weight(Tape& tape, SavedMemory& saved) const override {
    auto& s = static_cast<Saved&>(saved);
    ffn_->backward_weight(tape, *s.ffn);
    attention_->backward_weight(tape, *s.attention);
  }

 private:
  struct Saved : SavedMemory {
    Held attention_in, attention_rms, middle, ffn_in, ffn_rms, d_middle;
    SavedMemoryPtr attention, ffn;
  };
  std::int64_t rows() const { return shape_.token_rows * shape_.model.hidden_size; }
  void norm(Tape& tape, Held& y, Held& inverse_rms) const {
    y = tape.take(rows());
    inverse_rms = tape.take_sums(shape_.token_rows);
  }

  const RankShape& shape_;
  LayerMemoryPtr attention_, ffn_;
};

}  // namespace

LayerMemoryPtr feed_forward_memory(const RankShape& shape, std::int64_t width, std::int64_t rows) {
  return std::make_unique<FeedForward>(shape, width, rows);
}

LayerMemoryPtr between_borders(const RankShape& shape, LayerMemoryPtr inner) {
  return shape.tp == 1 ? std::move(inner) : std::make_unique<Borders>(shape, std::move(inner));
}

LayerMemoryPtr block_memory(const RankShape& shape, std::int64_t layer_idx) {
  const AttentionSection& a = shape.model.attention;
  const bool sparse = a.sparse == SparseKind::kNsa && std::ranges::find(a.dense_layers, layer_idx) == a.dense_layers.end();
  return std::make_unique<Block>(shape, sparse, model::is_moe_layer(shape.model, layer_idx));
}

}  // namespace hadal::plan
