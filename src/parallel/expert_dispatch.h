// Experts on the ranks of an expert group (spec/parallelism.md 3). Member ep_rank * etp + etp_rank holds the experts of ep_rank,
// of each the share etp_rank of its width; a token goes to all etp members of its experts' ep_rank, whose parts of a result are
// summed at the source.
//
// One hop: a token travels once to each member that has experts of it. Two hops, nodes of consecutive members: first once to each
// node that has experts of it, to the member there with the sender's place in its node (the rail), which sends it on inside the
// node; results are summed in a member (experts ascending), then in the node, then at the source (ranks ascending).
//
// The way is planned on the host, which knows how many rows come from where: on a device it waits for the choices of each route
// (T * K experts and weights; where room is bounded, room_dispatch.h does not). The rows themselves stay on the device.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "comm/communicator.h"
#include "nn/moe/expert_exchange.h"

namespace hadal::parallel {

struct ExpertDispatchOptions {
  std::int64_t num_experts = 0;  ///< of a layer
  int etp = 1;                   ///< members that share an expert's width
  int ranks_per_node = 0;        ///< consecutive members that form a node; 0: one hop
};

/// For any number of layers and micro-batches.
class ExpertDispatch final : public nn::ExpertExchange {
 public:
  /// Collective over `group`, which is kept.
  ExpertDispatch(comm::Communicator& group, const ExpertDispatchOptions& options);

  std::unique_ptr<nn::ExpertRoute> route(Stream& stream, ConstView experts, ConstView weights) override;

  /// Rows that the forward dispatches so far have sent to other ranks on each hop.
  std::span<const std::int64_t> rows_sent() const { return rows_sent_; }

 private:
  friend class DispatchRoute;

  struct Hop {
    comm::Communicator* group;
    std::function<int(std::int32_t member)> destination;
  };

  comm::Communicator& group_;
  int etp_;
  std::int64_t experts_per_member_;
  std::unique_ptr<comm::Communicator> rail_, node_;  // of two hops
  std::vector<Hop> hops_;
  std::vector<std::int64_t> rows_sent_;
};

}  // namespace hadal::parallel
