// The three attention branches of native sparse attention over given queries, keys and values (spec/model.md 8, appendix B),
// and the choice of blocks: what GQA and MLA layers share. Keys of the selected branch and compressed entries start at position
// 0, keys of the window wherever the span's query_start counts from.
#pragma once

#include <memory>
#include <utility>

#include "nn/attention/attention_options.h"
#include "nn/attention/attention_spans.h"
#include "nn/attention/branch_gate.h"
#include "nn/attention/selection_sum.h"

namespace hadal::nn {

class NsaBranches {
 public:
  /// `select_groups`: groups of query heads that share their blocks; `selection_sum` where heads of other ranks share them too.
  NsaBranches(const NsaOptions& options, double scale, std::int64_t select_groups,
              std::shared_ptr<const SelectionSum> selection_sum = nullptr)
      : options_(options), scale_(scale), select_groups_(select_groups), selection_sum_(std::move(selection_sum)) {}

  /// Attention over compressed entries; rows that see none give 0.
  void compressed(Stream& stream, const AttentionSpans& spans, const AttentionInput& in, kernels::Heads o, View lse) const;
  /// Blocks I32 [B*s, groups, n], n at most the blocks that there are, from the compressed branch's input and lse.
  Tensor select(Stream& stream, const AttentionSpans& spans, const AttentionInput& in, ConstView lse) const;
  void selected(Stream& stream, const AttentionSpans& spans, const AttentionInput& in, ConstView blocks, kernels::Heads o,
                View lse) const;
  void window(Stream& stream, const AttentionSpans& spans, const AttentionInput& in, kernels::Heads o, View lse) const;

  void compressed_backward(Stream& stream, const AttentionSpans& spans, const AttentionInput& in,
                           const AttentionGradient& gradient) const;
  void selected_backward(Stream& stream, const AttentionSpans& spans, const AttentionInput& in, ConstView blocks,
                         const AttentionGradient& gradient) const;
  void window_backward(Stream& stream, const AttentionSpans& spans, const AttentionInput& in,
                       const AttentionGradient& gradient) const;

  /// Compressed entries of a sequence of `tokens`.
  std::int64_t num_compressed(std::int64_t tokens) const;

 private:
  /// Importance of every block, summed where heads of other ranks share it, then the choice.
  void select_by_sum(Stream& stream, const AttentionSpans& spans, const AttentionInput& in, ConstView lse, Tensor& blocks,
                     std::int64_t num_blocks) const;
  template <class Args>
  void set_selection(Args& args, const AttentionSpan& span, const AttentionInput& in, ConstView lse) const;
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
