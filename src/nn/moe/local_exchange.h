// All experts are here: rows are gathered in expert order, results summed over a token's slots in their order.
#pragma once

#include "nn/moe/expert_exchange.h"

namespace hadal::nn {

class LocalExchange final : public ExpertExchange {
 public:
  explicit LocalExchange(std::int64_t num_experts) : num_experts_(num_experts) {}
  std::unique_ptr<ExpertRoute> route(Stream& stream, ConstView experts, ConstView weights) override;

 private:
  std::int64_t num_experts_;
};

}  // namespace hadal::nn
