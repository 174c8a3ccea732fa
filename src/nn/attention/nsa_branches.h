// The three attention branches of native sparse attention over given queries, keys and values (spec/model.md 8, appendix B),
// and the choice of blocks: what GQA and MLA layers share. Positions of queries are query_start + row within the sequence; keys
// of the selected branch start at position 0, compressed entries at 0, keys of the window wherever query_start counts from.
#pragma once

#include <memory>
#include <utility>

#include "kernels/flash_attention.h"
#include "nn/attention/attention_options.h"
#include "nn/attention/branch_gate.h"
#include "nn/attention/selection_sum.h"

namespace hadal::nn {

/// Shapes as in kernels/flash_attention.h; k_shared may be undefined.
struct BranchInput {
  kernels::ConstHeads q, k, k_shared, v;
};

/// What the backward pass of a branch reads and overwrites.
struct BranchGradient {
  kernels::ConstHeads o;
  ConstView lse;
  kernels::ConstHeads d_o;
  kernels::Heads d_q, d_k, d_k_shared, d_v;
};

class NsaBranches {
 public:
  /// `select_groups`: groups of query heads that share their blocks; `selection_sum` where heads of other ranks share them too.
  NsaBranches(const NsaOptions& options, double scale, std::int64_t select_groups,
              std::shared_ptr<const SelectionSum> selection_sum = nullptr)
      : options_(options), scale_(scale), select_groups_(select_groups), selection_sum_(std::move(selection_sum)) {}

  /// Attention over compressed entries; rows that see none give 0.
  void compressed(Stream& stream, std::int64_t batch, const BranchInput& in, std::int64_t query_start, kernels::Heads o,
                  View lse) const;
  /// Blocks I32 [B*S, groups, n], n at most the blocks that there are, from the compressed branch's input and lse.
  Tensor select(Stream& stream, std::int64_t batch, const BranchInput& in, ConstView lse, std::int64_t query_start) const;
  void selected(Stream& stream, std::int64_t batch, const BranchInput& in, ConstView blocks, std::int64_t query_start,
                kernels::Heads o, View lse) const;
  void window(Stream& stream, std::int64_t batch, const BranchInput& in, std::int64_t query_start, kernels::Heads o,
              View lse) const;

  void compressed_backward(Stream& stream, std::int64_t batch, const BranchInput& in, const BranchGradient& gradient) const;
  void selected_backward(Stream& stream, std::int64_t batch, const BranchInput& in, ConstView blocks,
                         const BranchGradient& gradient) const;
  void window_backward(Stream& stream, std::int64_t batch, const BranchInput& in, const BranchGradient& gradient) const;

  /// Compressed entries of a sequence of `tokens`.
  std::int64_t num_compressed(std::int64_t tokens) const;

 private:
  kernels::AttentionMask block_mask() const;
  kernels::AttentionMask window_mask() const;

  NsaOptions options_;
  double scale_;
  std::int64_t select_groups_;
  std::shared_ptr<const SelectionSum> selection_sum_;
};

/// Block choice that can be held fixed (Attention::hold_selection).
class HeldBlocks {
 public:
  void hold(bool hold) {
    hold_ = hold;
    blocks_.reset();
  }
  /// The held blocks, or those that `select` returns.
  template <class Select>
  Tensor get(Select&& select) {
    if (!hold_) return select();
    if (!blocks_.defined()) blocks_ = select();
    return blocks_.clone();
  }

 private:
  bool hold_ = false;
  Tensor blocks_;
};

}  // namespace hadal::nn
