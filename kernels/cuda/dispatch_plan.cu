// The dispatch plan: a stable counting sort of the (token, slot) pairs by expert.
#include "kernels/cuda/counting_sort.cuh"
#include "kernels/router.h"

namespace hadal::kernels::cuda {
namespace {

struct ExpertOfPair {
  const int* experts;
  __device__ int operator()(int pair) const { return experts[pair]; }
};

struct WritePlan {
  int top_k;
  int *row_token, *row_pair, *pair_row;
  __device__ void operator()(int pair, int row) const {
    row_token[row] = pair / top_k;
    row_pair[row] = pair;
    pair_row[pair] = row;
  }
};

void dispatch_plan(Stream& stream, const DispatchPlan& args) {
  const int top_k = args.experts.empty() ? 1 : static_cast<int>(args.experts.shape[1]);
  stable_counting_sort(stream, DispatchPlan::kName, args.experts.numel(), args.num_experts, ExpertOfPair{args.experts.as<std::int32_t>()},
                       WritePlan{top_k, args.row_token.as<std::int32_t>(), args.row_pair.as<std::int32_t>(), args.pair_row.as<std::int32_t>()},
                       args.offsets.as<std::int64_t>());
}

const RegisterCuda<DispatchPlan> registered{dispatch_plan};

}  // namespace
}  // namespace hadal::kernels::cuda
