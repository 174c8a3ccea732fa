#include "kernels/cuda/nsa_key_work.cuh"

#include <algorithm>

#include "kernels/cuda/check.h"

namespace hadal::kernels::cuda {
namespace {

constexpr int kScanThreads = 1024;

// One block of threads: exclusive sums of the pieces and of the partial sums of all outputs.
__global__ void __launch_bounds__(kScanThreads)
    plan_kernel(SelectedSizes sizes, Lists lists, int outputs, int piece_tiles, std::int32_t* starts, std::int32_t* slots) {
  __shared__ int2 sums[kScanThreads];
  const int each = (outputs + kScanThreads - 1) / kScanThreads, thread = static_cast<int>(threadIdx.x);
  const int begin = min(thread * each, outputs), end = min(begin + each, outputs);
  const auto pieces_of = [&](int i) { return max(1, (lists.tiles(sizes, Output(sizes, i)) + piece_tiles - 1) / piece_tiles); };
  int2 sum{0, 0};
  for (int i = begin; i < end; ++i) {
    const int pieces = pieces_of(i);
    sum.x += pieces;
    sum.y += pieces > 1 ? pieces : 0;
  }
  sums[thread] = sum;
  __syncthreads();
  for (int step = 1; step < kScanThreads; step *= 2) {
    const int2 before = thread >= step ? sums[thread - step] : int2{0, 0};
    __syncthreads();
    sums[thread].x += before.x;
    sums[thread].y += before.y;
    __syncthreads();
  }
  int2 at = thread > 0 ? sums[thread - 1] : int2{0, 0};
  for (int i = begin; i < end; ++i) {
    const int pieces = pieces_of(i);
    starts[i] = at.x;
    slots[i] = at.y;
    at.x += pieces;
    at.y += pieces > 1 ? pieces : 0;
  }
  if (thread == kScanThreads - 1) {
    starts[outputs] = sums[thread].x;
    slots[outputs] = sums[thread].y;
  }
}

}  // namespace

KeyPlan::KeyPlan(Stream& stream, const SelectedSizes& sizes, const Lists& lists, int keys_of_tile, std::int64_t wanted) {
  const char* const op = "nsa: plan of the keys' gradients";
  const std::int64_t outputs = sizes.batch * sizes.num_blocks * sizes.key_heads, key_tiles = (sizes.select_block + keys_of_tile - 1) / keys_of_tile;
  const std::int64_t tiles = sizes.batch * sizes.tokens * sizes.heads * sizes.chosen / kRows + outputs * lists.segments_of_key;
  const std::int64_t piece_tiles = std::max<std::int64_t>(kLeastPieceTiles, tiles / wanted + 1);
  pieces_ = tiles / piece_tiles + outputs;
  slots_ = 2 * (tiles / piece_tiles);
  HADAL_CHECK(pieces_ * key_tiles < INT32_MAX && tiles < INT32_MAX, "{}: {} pieces of work, {} tiles", op, pieces_ * key_tiles, tiles);
  plan_ = Tensor::empty({2, outputs + 1}, DType::kI32, stream.device());
  auto* const starts = plan_.as<std::int32_t>();
  work_ = {starts, starts + outputs + 1, static_cast<int>(outputs), static_cast<int>(key_tiles), static_cast<int>(piece_tiles)};
  plan_kernel<<<1, kScanThreads, 0, native(stream)>>>(sizes, lists, work_.outputs, work_.piece_tiles, starts, starts + outputs + 1);
  check_launch(op);
}

}  // namespace hadal::kernels::cuda
