// The dispatch plan: a stable counting sort of the (token, slot) pairs by expert in two launches, without the host. Every block has one
// stretch of the pairs, every warp of a block one part of it. The first launch counts the pairs per block and expert; in the second
// each block adds up what lies before it, then its warps go through their parts in order and give out rows. Counts are integers and
// places follow from the order of the pairs, so the result is that of the sequential sort.
#include <algorithm>

#include "core/tensor.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/device_math.cuh"
#include "kernels/router.h"

namespace hadal::kernels::cuda {
namespace {

constexpr int kWarps = 16;  ///< of a block
constexpr int kThreads = kWarps * kWarp;
constexpr int kAhead = 4;  ///< pairs that a lane has on their way
constexpr unsigned kAllLanes = 0xffffffffu;

/// Pairs [begin, end) of a warp.
struct Stretch {
  int begin, end;
};

__device__ Stretch stretch_of(int pairs, int pairs_per_warp, int block, int warp) {
  const std::int64_t begin = (static_cast<std::int64_t>(block) * kWarps + warp) * pairs_per_warp;
  const std::int64_t last = begin + pairs_per_warp;
  return {static_cast<int>(begin < pairs ? begin : pairs), static_cast<int>(last < pairs ? last : pairs)};
}

/// Where this lane's pair stands among the pairs of its expert in the warp's 32: how many come before, how many there are. All lanes
/// call; those past the end give -1.
struct Place {
  int before, count;
};

__device__ Place place_in_warp(int expert) {
  const unsigned same = __match_any_sync(kAllLanes, expert), below = (1u << threadIdx.x % kWarp) - 1;
  return {__popc(same & below), __popc(same)};
}

/// body(pair, expert) for each pair of the stretch in order, 32 at a time; all lanes call, past the end with expert -1.
template <class Body>
__device__ void for_each_pair(const int* experts, Stretch stretch, const Body& body) {
  for (int first = stretch.begin + static_cast<int>(threadIdx.x) % kWarp; __any_sync(kAllLanes, first < stretch.end); first += kAhead * kWarp) {
    int expert[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) expert[i] = first + i * kWarp < stretch.end ? experts[first + i * kWarp] : -1;
#pragma unroll
    for (int i = 0; i < kAhead; ++i) body(first + i * kWarp, expert[i]);
  }
}

__global__ void __launch_bounds__(kThreads) count_kernel(const int* experts, int pairs, int pairs_per_warp, int num_experts, int* block_counts) {
  extern __shared__ int counts[];  // [E]
  for (int e = static_cast<int>(threadIdx.x); e < num_experts; e += kThreads) counts[e] = 0;
  __syncthreads();
  const Stretch stretch = stretch_of(pairs, pairs_per_warp, static_cast<int>(blockIdx.x), static_cast<int>(threadIdx.x) / kWarp);
  for_each_pair(experts, stretch, [](int, int expert) {
    const Place place = place_in_warp(expert);
    if (expert >= 0 && place.before == 0) atomicAdd(counts + expert, place.count);
  });
  __syncthreads();
  for (int e = static_cast<int>(threadIdx.x); e < num_experts; e += kThreads) block_counts[blockIdx.x * num_experts + e] = counts[e];
}

__global__ void __launch_bounds__(kThreads)
    fill_kernel(const int* experts, int pairs, int pairs_per_warp, int num_experts, int top_k, const int* block_counts, std::int64_t* offsets,
                int* row_token, int* row_pair, int* pair_row) {
  extern __shared__ int shared[];
  int* const next = shared;                          // [kWarps, E]: the next row of each expert, for each warp
  int* const total = shared + kWarps * num_experts;  // [E]: pairs of each expert
  int* const before = total + num_experts;           // [E]: those in the blocks before
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarp, warp = thread / kWarp;
  const int blocks = static_cast<int>(gridDim.x), block = static_cast<int>(blockIdx.x);
  for (int i = thread; i < (kWarps + 2) * num_experts; i += kThreads) shared[i] = 0;
  __syncthreads();

  // Each thread adds up one expert's counts of every slices-th block.
  const int slices = kThreads / num_experts > 0 ? kThreads / num_experts : 1;
  for (int i = thread; i < slices * num_experts; i += kThreads) {
    const int e = i % num_experts;
    int all = 0, earlier = 0;
#pragma unroll 8
    for (int b = i / num_experts; b < blocks; b += slices) {
      const int count = block_counts[b * num_experts + e];
      all += count;
      if (b < block) earlier += count;
    }
    atomicAdd(total + e, all);
    atomicAdd(before + e, earlier);
  }
  int* const mine = next + warp * num_experts;
  const Stretch stretch = stretch_of(pairs, pairs_per_warp, block, warp);
  for_each_pair(experts, stretch, [mine](int, int expert) {
    const Place place = place_in_warp(expert);
    if (expert >= 0 && place.before == 0) mine[expert] += place.count;
    __syncwarp();
  });
  __syncthreads();

  if (warp == 0) {  // total becomes the first row of each expert
    int sum = 0;
    for (int first = 0; first < num_experts; first += kWarp) {
      const int e = first + lane;
      const int count = e < num_experts ? total[e] : 0;
      int upto = count;
      for (int step = 1; step < kWarp; step *= 2) {
        const int lower = __shfl_up_sync(kAllLanes, upto, step);
        if (lane >= step) upto += lower;
      }
      if (e < num_experts) total[e] = sum + upto - count;
      sum += __shfl_sync(kAllLanes, upto, kWarp - 1);
    }
  }
  __syncthreads();
  for (int e = thread; e < num_experts; e += kThreads) {
    int row = total[e] + before[e];
    for (int w = 0; w < kWarps; ++w) {
      const int count = next[w * num_experts + e];
      next[w * num_experts + e] = row;
      row += count;
    }
    if (block == 0) offsets[e] = total[e];
  }
  if (block == 0 && thread == 0) offsets[num_experts] = pairs;
  __syncthreads();

  for_each_pair(experts, stretch, [=](int pair, int expert) {
    const Place place = place_in_warp(expert);
    const int row = expert >= 0 ? mine[expert] + place.before : 0;
    __syncwarp();
    if (expert >= 0) {
      if (place.before == 0) mine[expert] += place.count;
      row_token[row] = pair / top_k;
      row_pair[row] = pair;
      pair_row[pair] = row;
    }
    __syncwarp();
  });
}

void dispatch_plan(Stream& stream, const DispatchPlan& args) {
  constexpr std::int64_t kMostPairs = std::int64_t{1} << 30, kMostExperts = 2048;  // the experts' counts lie in shared memory
  HADAL_CHECK(args.experts.numel() <= kMostPairs && args.num_experts <= kMostExperts, "{} pairs over {} experts", args.experts.numel(),
              args.num_experts);
  const int pairs = static_cast<int>(args.experts.numel()), num_experts = static_cast<int>(args.num_experts);
  const int top_k = pairs == 0 ? 1 : static_cast<int>(args.experts.shape[1]);
  // At most one block per multiprocessor: each reads the counts of all.
  const int most_warps = num_multiprocessors(stream.device().index) * kWarps;
  constexpr int kStep = kAhead * kWarp;
  const int pairs_per_warp = std::max(kStep, ((pairs - 1) / most_warps / kStep + 1) * kStep);
  const int blocks = std::max(1, static_cast<int>((pairs + std::int64_t{pairs_per_warp} * kWarps - 1) / (std::int64_t{pairs_per_warp} * kWarps)));
  Tensor block_counts = Tensor::empty({blocks, num_experts}, DType::kI32, stream.device());
  std::int32_t* const counts = block_counts.as<std::int32_t>();
  const std::int32_t* const experts = args.experts.as<std::int32_t>();
  const std::size_t row_bytes = static_cast<std::size_t>(num_experts) * sizeof(int), fill_bytes = (kWarps + 2) * row_bytes;
  allow_shared_memory(fill_kernel, fill_bytes, DispatchPlan::kName);
  count_kernel<<<blocks, kThreads, row_bytes, native(stream)>>>(experts, pairs, pairs_per_warp, num_experts, counts);
  check_launch(DispatchPlan::kName);
  fill_kernel<<<blocks, kThreads, fill_bytes, native(stream)>>>(experts, pairs, pairs_per_warp, num_experts, top_k, counts,
                                                                args.offsets.as<std::int64_t>(), args.row_token.as<std::int32_t>(),
                                                                args.row_pair.as<std::int32_t>(), args.pair_row.as<std::int32_t>());
  check_launch(DispatchPlan::kName);
}

const RegisterCuda<DispatchPlan> registered{dispatch_plan};

}  // namespace
}  // namespace hadal::kernels::cuda
