// What the layers of one rank know of the ranks beside it: communicators of the axes they are sharded over. Null: one rank.
#pragma once

#include <memory>

#include "comm/communicator.h"
#include "nn/attention/selection_sum.h"
#include "nn/moe/expert_exchange.h"
#include "nn/sequence_shard.h"
#include "nn/shard.h"

namespace hadal::parallel {

struct LayerGroups {
  comm::Communicator* tp = nullptr;              ///< heads, channels, vocabulary; token-wise rows are sharded over it too
  comm::Communicator* experts = nullptr;         ///< ep x etp: tokens travel among these; member = ep_rank * etp + etp_rank
  comm::Communicator* sequences = nullptr;       ///< cp x tp: ranks that hold tokens of the same sequences
  const nn::SequenceShard* context = nullptr;    ///< cp
  std::shared_ptr<const nn::SelectionSum> selection;  ///< where heads of one selection group lie on several tp ranks
  std::shared_ptr<nn::ExpertExchange> dispatch;  ///< over `experts`
  std::shared_ptr<nn::ExpertExchange> training_dispatch;  ///< of tokens whose backward follows; null: `dispatch`
  nn::Shard expert{};                            ///< ep
  nn::Shard expert_width{};                      ///< etp
  std::int64_t ranks_per_node = 0;               ///< of `experts`; 0: one hop
  double expert_capacity = 0;                    ///< room of the training dispatch; 0: exact counts

  nn::Shard tensor() const { return tp == nullptr ? nn::Shard{} : nn::Shard{tp->rank(), tp->size()}; }
};

}  // namespace hadal::parallel
