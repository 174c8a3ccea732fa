// The mirror of nn/moe: router, dispatch (local_exchange, parallel/expert_dispatch or parallel/room_dispatch), experts, shared experts.
#include <cmath>

#include "plan/kernel_scratch.h"
#include "plan/layer_memory.h"

namespace hadal::plan {
namespace {

std::int64_t whole(double rows) { return static_cast<std::int64_t>(std::llround(rows)); }

class Moe final : public LayerMemory {
 public:
  explicit Moe(const RankShape& shape)
      : shape_(shape),
        tokens_(shape.token_rows),
        d_(shape.model.hidden_size),
        num_experts_(shape.model.moe.num_experts),
        pairs_(tokens_ * shape.model.moe.top_k),
        width_(shape.model.moe.intermediate_size / shape.etp),
        rows_(whole(shape.experts.room)),
        exchanges_(shape.ep * shape.etp > 1) {
    const std::int64_t shared = shape.model.moe.num_shared * shape.model.moe.intermediate_size;
    if (shared > 0) shared_ = between_borders(shape, feed_forward_memory(shape, shared / shape.tp, shape.tokens));
  }

  Held forward(Tape& tape, SavedMemoryPtr& saved) const override {
    auto s = std::make_unique<Saved>();
    {
      const Held logits = tape.take_sums(tokens_ * num_experts_);
      gemm_scratch(tape, Product::kForward, tokens_, num_experts_, d_);
      router_scratch(tape, tokens_, num_experts_, d_);
      s->scores = tape.take_sums(tokens_ * num_experts_);
      s->experts = tape.take(pairs_, DType::kI32);
      const Held weights = tape.take_sums(pairs_);
      route(tape, *s);
      start_dispatch(tape, *s);
      if (shape_.balance_loss) s->d_scores = tape.take_sums(tokens_ * num_experts_);
    }
    Held base = shared_ ? shared_->forward(tape, s->shared) : Held();
    s->rows = finish_dispatch(tape, *s);
    s->gate_up = tape.take(rows_ * 2 * width_);
    s->h = tape.take(rows_ * width_);
    Held y = tape.take(rows_ * d_);
    grouped_scratch(tape, Product::kForward, experts_here(), rows_, 2 * width_, d_);
    grouped_scratch(tape, Product::kForward, experts_here(), rows_, d_, width_);
    Combine combine = start_combine(tape, std::move(y), Held());
    Held out = shared_ ? std::move(base) : tape.take(tokens_ * d_);
    combine = {};
    saved = std::move(s);
    return out;
  }

  Held backward_input(Tape& tape, SavedMemory& saved) const override {
    auto& s = static_cast<Saved&>(saved);
    start_dispatch(tape, s);
    Held d_x = shared_ ? shared_->backward_input(tape, *s.shared) : tape.take(tokens_ * d_);
    s.d_y = finish_dispatch(tape, s);
    Held d_row_weight = tape.take_sums(rows_);
    {
      const Held d_h = tape.take(rows_ * width_);
      grouped_scratch(tape, Product::kBackwardInput, experts_here(), rows_, width_, d_);
    }
    Held d_rows = tape.take(rows_ * d_);
    grouped_scratch(tape, Product::kBackwardInput, experts_here(), rows_, d_, 2 * width_);
    Combine combine = start_combine(tape, std::move(d_rows), std::move(d_row_weight));
    const Held d_weights = tape.take_sums(pairs_);
    combine = {};
    const Held d_logits = tape.take_sums(tokens_ * num_experts_);
    gemm_scratch(tape, Product::kBackwardInput, tokens_, d_, num_experts_);
    gemm_scratch(tape, Product::kBackwardWeight, num_experts_, d_, tokens_);
    router_backward_scratch(tape, tokens_, num_experts_, d_);
    return d_x;
  }

  void backward_weight(Tape& tape, SavedMemory& saved) const override {
    grouped_scratch(tape, Product::kBackwardWeight, experts_here(), rows_, width_, 0);
    grouped_scratch(tape, Product::kBackwardWeight, experts_here(), rows_, d_, 0);
    if (shared_) shared_->backward_weight(tape, *static_cast<Saved&>(saved).shared);
  }

 private:
  struct Saved : SavedMemory {
    Held scores, experts, d_scores;
    Held route[8];  ///< index tensors of the way
    Held out, in;   ///< buffers of the dispatch under way
    Held rows, gate_up, h, d_y;
    SavedMemoryPtr shared;
  };
  struct Combine {
    Held out, in, scalars_out, scalars_in;
  };

  std::int64_t experts_here() const { return num_experts_ / shape_.ep; }
  /// Rows that arrive on the last hop: as many as leave on it, at the mean rank.
  std::int64_t sent() const { return whole(shape_.experts.first_sent); }
  std::int64_t received() const {
    return whole(shape_.experts.second_sent > 0 ? shape_.experts.second_sent : shape_.experts.first_sent);
  }

  /// Places that one token's experts are at, at most, and slots of the rows that arrive where room travels.
  std::int64_t most_places() const { return std::min(shape_.model.moe.top_k, shape_.ep); }
  std::int64_t slots() const { return received() * std::min(shape_.model.moe.top_k, experts_here()); }
  /// Scalars that accompany rows on their way back.
  std::int64_t scalars_back() const { return shape_.expert_room ? slots() : rows_; }

  void route(Tape& tape, Saved& s) const {
    const auto ints = [&](std::size_t i, std::int64_t count) { s.route[i] = tape.take(count, DType::kI32); };
    s.route[0] = tape.take(experts_here() + 1, DType::kI64);
    if (!exchanges_) {
      ints(1, rows_);
      s.route[2] = tape.take_sums(rows_);
      const Held row_token = tape.take(rows_, DType::kI32);
      tape.take(rows_, DType::kI32);
      return;
    }
    if (shape_.expert_room) {
      ints(1, tokens_ * shape_.model.moe.top_k * shape_.etp);  // pair_sends
      ints(2, sent());                                         // sent_row
      ints(3, tokens_ * most_places() * shape_.etp);           // row_sends
      const Held out_experts = tape.take(slots(), DType::kI32), out_weights = tape.take_sums(slots());
      const Held in_experts = tape.take(slots(), DType::kI32), in_weights = tape.take_sums(slots());
      ints(6, slots());               // slot_row
      s.route[7] = tape.take_sums(rows_);  // row_weight
      return;
    }
    const std::int64_t items = whole(shape_.experts.items);
    ints(1, items);                                                          // item_pair
    ints(2, sent());                                                         // sent_row
    ints(3, tokens_ * shape_.model.moe.top_k);                               // row_sends
    ints(4, items);                                                          // item_position
    ints(5, 2 * rows_);                                                      // source, item_row
    ints(6, received() * std::min(shape_.model.moe.top_k, experts_here()));  // row_items
    s.route[7] = tape.take_sums(rows_);                                      // row_weight
  }

  void start_dispatch(Tape& tape, Saved& s) const {
    if (!exchanges_) return;
    s.out = tape.take(sent() * d_);
    s.in = tape.take(sent() * d_);
  }
  Held finish_dispatch(Tape& tape, Saved& s) const {
    s.out.reset();
    Held rows = std::move(s.in);
    if (shape_.experts.second_sent > 0) {
      const Held out = tape.take(received() * d_);
      rows = tape.take(received() * d_);
    }
    return tape.take(rows_ * d_);
  }

  /// Until it is given back, the transfer's buffers live.
  Combine start_combine(Tape& tape, Held rows, Held scalars) const {
    Combine c;
    if (!exchanges_) {
      c.out = std::move(rows);
      c.scalars_out = std::move(scalars);
      return c;
    }
    if (scalars.defined()) c.scalars_out = tape.take_sums(scalars_back());
    scalars.reset();
    c.out = tape.take(received() * d_);
    rows.reset();
    if (shape_.experts.second_sent > 0) {
      c.in = tape.take(received() * d_);
      c.out = tape.take(sent() * d_);
    }
    c.in = tape.take(sent() * d_);
    if (c.scalars_out.defined()) c.scalars_in = tape.take_sums(shape_.expert_room ? slots() : whole(shape_.experts.items));
    return c;
  }

  const RankShape& shape_;
  std::int64_t tokens_, d_, num_experts_, pairs_, width_, rows_;
  bool exchanges_;
  LayerMemoryPtr shared_;
};

}  // namespace

LayerMemoryPtr moe_memory(const RankShape& shape) { return std::make_unique<Moe>(shape); }

}  // namespace hadal::plan
