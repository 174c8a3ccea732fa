// The layer contract. A layer holds parameters and sizes only; what one micro-batch needs later lives in a Saved record owned by
// the caller, since many micro-batches are in flight. Shape legend: B sequences, S tokens each, T = B*S rows, d hidden size.
//
//   y   = forward(ctx, x, &saved)          saved == nullptr: nothing is kept (evaluation)
//   d_x = backward_input(ctx, d_y, saved)  overwrites d_x; small gradients (norm gains, biases, router) may be finished here
//   backward_weight(ctx, saved)            accumulates parameter gradients; may come later, in the same micro-batch order
//
// The memory behind x and d_y stays valid and unchanged until backward_weight has returned (the caller keeps it).
//
// Everything lies on the device of ctx.stream, where work is only enqueued: a layer reads no memory of it and waits for nothing. x, y,
// matrices and the gradients of activations have the model's dtype; statistics, small parameters (gains, biases, the router) and the
// gradients of all parameters its accumulation dtype (core/storage.h).
#pragma once

#include <memory>
#include <vector>

#include "core/stream.h"
#include "core/tensor.h"
#include "nn/parameter.h"
#include "nn/sequence_shard.h"

namespace hadal::nn {

/// What a layer has to know about the micro-batch at hand.
struct Context {
  Stream& stream;
  std::int64_t batch = 1;  ///< B
  std::int64_t seq = 1;    ///< tokens of each sequence that lie here: S, or fewer under context parallelism
  /// Positions at the end of each sequence that stand for no token (MTP depth k: k); not in loads nor balance losses.
  std::int64_t num_padding = 0;
  /// Factor of a per-sequence auxiliary loss in the training loss: 1 / sequences of the global batch.
  double sequence_scale = 1.0;
  /// Where the tokens here stand in their sequences; null: sequences are whole.
  const SequenceShard* sequence = nullptr;
  /// Sequence parallelism: token-wise layers (norms, router and experts) hold rows [token_begin, token_begin + T') of the B*seq.
  std::int64_t token_begin = 0;

  /// S.
  std::int64_t whole_seq() const { return sequence == nullptr ? seq : sequence->whole_seq(); }
  /// Of row `row` of a token-wise layer: its sequence, and its position there.
  std::int64_t sequence_of_row(std::int64_t row) const { return (token_begin + row) / seq; }
  std::int64_t position_of_row(std::int64_t row) const {
    std::int64_t offset = (token_begin + row) % seq;
    if (sequence == nullptr) return offset;
    for (const Segment& segment : sequence->segments()) {
      if (offset < segment.length) return segment.position + offset;
      offset -= segment.length;
    }
    HADAL_CHECK(false, "row {} of {} tokens lies in no segment", row, seq);
  }
};

/// Base of each layer's record of one micro-batch.
struct Saved {
  Saved() = default;
  Saved(const Saved&) = delete;
  Saved& operator=(const Saved&) = delete;
  virtual ~Saved() = default;
};
using SavedPtr = std::unique_ptr<Saved>;

class Layer {
 public:
  virtual ~Layer() = default;
  /// x [T, d_in] -> y [T, d_out].
  virtual Tensor forward(Context& ctx, ConstView x, SavedPtr* saved) = 0;
  virtual Tensor backward_input(Context& ctx, ConstView d_y, Saved& saved) = 0;
  virtual void backward_weight(Context& ctx, Saved& saved) = 0;
  /// Appends this layer's parameters, in a fixed order.
  virtual void collect(ParameterList& parameters) = 0;
};

/// The layer's own record behind the base reference.
template <class T>
T& saved_as(Saved& saved) {
  return static_cast<T&>(saved);
}

/// Puts a fresh record of type T into *saved when there is one to fill; otherwise null.
template <class T>
T* make_saved(SavedPtr* saved) {
  if (saved == nullptr) return nullptr;
  auto owned = std::make_unique<T>();
  T* raw = owned.get();
  *saved = std::move(owned);
  return raw;
}

}  // namespace hadal::nn
