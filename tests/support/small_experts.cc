#include "tests/support/small_experts.h"

namespace hadal::test {

nn::MoeOptions small_moe(std::int64_t hidden_size, std::int64_t num_experts) {
  nn::MoeOptions o;
  o.hidden_size = hidden_size;
  o.num_experts = num_experts;
  o.num_shared = 0;
  o.width = 4;
  o.init_std = 0.5;
  o.dtype = DType::kF64;
  return o;
}

nn::MoeOptions small_v2_moe(std::int64_t hidden_size, std::int64_t num_experts) {
  nn::MoeOptions o = small_moe(hidden_size, num_experts);
  o.has_bias = false;
  o.router = {.score = kernels::RouterOptions::Score::kSoftmax,
              .group_score = kernels::RouterOptions::GroupScore::kMax,
              .top_k = 3,
              .num_groups = 4,
              .topk_groups = 2,
              .normalize = false,
              .scaling = 4.0};
  return o;
}

void add_gradients_of_ranks(LogicalTensors& sum, const nn::ParameterList& parameters, comm::Communicator& world) {
  for (int rank = 0; rank < world.size(); ++rank) {
    if (rank == world.rank()) add_gradients(sum, parameters);
    world.barrier();
  }
}

}  // namespace hadal::test
