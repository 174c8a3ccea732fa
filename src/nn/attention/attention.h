// Attention as a block sees it: a layer over whole sequences, plus incremental decoding of one sequence against a cache.
//
// Tensor parallelism (AttentionOptions::heads): x and d_y hold all B*s tokens of the group, y and d_x are partial sums over its
// ranks, and so are the gradients of parameters that are not sliced. Context parallelism (Context::sequence): x, y and their
// gradients are those of the tokens here; every parameter's gradient is a partial sum. Decoding is for whole heads and sequences.
#pragma once

#include <memory>

#include "nn/layer.h"

namespace hadal::nn {

/// What one layer keeps of one sequence while generating.
class AttentionCache {
 public:
  virtual ~AttentionCache() = default;
  /// Tokens held.
  virtual std::int64_t length() const = 0;
  /// Forgets tokens from `length` on (a rejected speculation); length <= length().
  virtual void truncate(std::int64_t length) = 0;
  /// Bytes per token at the present length, compressed entries included.
  virtual double bytes_per_token() const = 0;
};

class Attention : public Layer {
 public:
  /// Empty cache for at most `max_tokens`.
  virtual std::unique_ptr<AttentionCache> make_cache(std::int64_t max_tokens) const = 0;
  /// x [n, d]: the next n tokens of the sequence, appended to the cache -> [n, d]. Equals the rows of `forward` over the whole
  /// sequence.
  virtual Tensor decode(Context& ctx, ConstView x, AttentionCache& cache) = 0;
  /// While held, the blocks that sparse queries selected in the first `forward` after the call are used again by every later one,
  /// so that finite differences see no jump. For gradient checks; dense layers ignore it.
  virtual void hold_selection(bool /*hold*/) {}
};

}  // namespace hadal::nn
