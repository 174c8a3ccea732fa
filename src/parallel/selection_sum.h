// nn::SelectionSum over a tensor-parallel group (spec/parallelism.md 7): ranks_per_group consecutive ranks hold the heads of one
// selection group and add up their importance.
#pragma once

#include <memory>

#include "comm/communicator.h"
#include "nn/attention/attention_options.h"
#include "nn/attention/selection_sum.h"

namespace hadal::parallel {

class SelectionSum : public nn::SelectionSum {
 public:
  /// Collective over `tp`, whose size `ranks_per_group` divides.
  SelectionSum(comm::Communicator& tp, std::int64_t ranks_per_group);

  void sum(Stream& stream, View importance) const override;

 private:
  std::unique_ptr<comm::Communicator> ranks_;
};

/// What make_attention wants for these options; null where every selection group lies on one rank. One serves all layers.
std::shared_ptr<const nn::SelectionSum> make_selection_sum(comm::Communicator& tp, const nn::AttentionOptions& options);

}  // namespace hadal::parallel
