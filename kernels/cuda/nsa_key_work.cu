#include "kernels/cuda/nsa_key_work.cuh"

#include <algorithm>

#include "kernels/cuda/check.h"

namespace hadal::kernels::cuda {
namespace {

constexpr int kScanThreads = 1024;

// Exclusive sums over the threads of a block of kScanThreads; `sums` ends with the inclusive ones.
__device__ int2 sum_before(int2 own, int2* sums) {
  const int thread = static_cast<int>(threadIdx.x);
  sums[thread] = own;
  __syncthreads();
  for (int step = 1; step < kScanThreads; step *= 2) {
    const int2 before = thread >= step ? sums[thread - step] : int2{0, 0};
    __syncthreads();
    sums[thread].x += before.x;
    sums[thread].y += before.y;
    __syncthreads();
  }
  return thread > 0 ? sums[thread - 1] : int2{0, 0};
}

// One block of threads: exclusive sums of the pieces and of the partial sums of all outputs.
__global__ void __launch_bounds__(kScanThreads)
    plan_kernel(SelectedSizes sizes, Lists lists, KeyHeads heads, int outputs, int piece_tiles, bool all_partial, std::int32_t* starts,
                std::int32_t* slots) {
  __shared__ int2 sums[kScanThreads];
  const int each = (outputs + kScanThreads - 1) / kScanThreads, thread = static_cast<int>(threadIdx.x);
  const int begin = min(thread * each, outputs), end = min(begin + each, outputs);
  const auto pieces_of = [&](int i) { return max(1, (lists.tiles(sizes, Output(sizes, heads, i)) + piece_tiles - 1) / piece_tiles); };
  int2 sum{0, 0};
  for (int i = begin; i < end; ++i) {
    const int pieces = pieces_of(i);
    sum.x += pieces;
    sum.y += pieces > 1 || all_partial ? pieces : 0;
  }
  int2 at = sum_before(sum, sums);
  for (int i = begin; i < end; ++i) {
    const int pieces = pieces_of(i);
    starts[i] = at.x;
    slots[i] = at.y;
    at.x += pieces;
    at.y += pieces > 1 || all_partial ? pieces : 0;
  }
  if (thread == kScanThreads - 1) {
    starts[outputs] = sums[thread].x;
    slots[outputs] = sums[thread].y;
  }
}

// Block q of threads: the items of number q, after those of all higher numbers.
__global__ void __launch_bounds__(kScanThreads) order_kernel(int outputs, const std::int32_t* starts, Item* items) {
  __shared__ int2 sums[kScanThreads];
  const int each = (outputs + kScanThreads - 1) / kScanThreads, thread = static_cast<int>(threadIdx.x), number = static_cast<int>(blockIdx.x);
  const int begin = min(thread * each, outputs), end = min(begin + each, outputs);
  int2 sum{0, 0};  // items of higher numbers, items of this one
  for (int i = begin; i < end; ++i) {
    const int pieces = starts[i + 1] - starts[i];
    sum.x += max(0, pieces - 1 - number);
    sum.y += pieces > number ? 1 : 0;
  }
  int at = sum_before(sum, sums).y + sums[kScanThreads - 1].x;
  for (int i = begin; i < end; ++i) {
    if (starts[i + 1] - starts[i] > number) items[at++] = {i, number};
  }
}

}  // namespace

KeyPlan::KeyPlan(Stream& stream, const SelectedSizes& sizes, const Lists& lists, KeyHeads heads, int keys_of_tile, std::int64_t wanted,
                 std::int64_t tokens, bool all_partial) {
  const char* const op = "nsa: plan of the keys' gradients";
  const std::int64_t key_tiles = (sizes.select_block + keys_of_tile - 1) / keys_of_tile;
  const auto [outputs, tiles, piece_tiles, pieces, slots] = key_piece_counts(shape_of(sizes), heads.count, tokens, lists.tile_rows, wanted, all_partial);
  pieces_ = pieces;
  slots_ = slots;
  HADAL_CHECK(pieces_ * key_tiles < INT32_MAX && tiles < INT32_MAX, "{}: {} pieces of work, {} tiles", op, pieces_ * key_tiles, tiles);
  plan_ = Tensor::empty({2, outputs + 1}, DType::kI32, stream.device());
  items_ = Tensor::empty({pieces_, 2}, DType::kI32, stream.device());
  auto* const starts = plan_.as<std::int32_t>();
  auto* const items = reinterpret_cast<Item*>(items_.as<std::int32_t>());
  work_ = {starts, starts + outputs + 1, items, heads, static_cast<int>(outputs), static_cast<int>(key_tiles), static_cast<int>(piece_tiles)};
  plan_kernel<<<1, kScanThreads, 0, native(stream)>>>(sizes, lists, heads, work_.outputs, work_.piece_tiles, all_partial, starts,
                                                      starts + outputs + 1);
  check_launch(op);
  const std::int64_t longest = tokens * sizes.heads_per_key() / lists.tile_rows + lists.segments_of_key;  // tiles of an output
  order_kernel<<<static_cast<unsigned>(longest / piece_tiles + 1), kScanThreads, 0, native(stream)>>>(work_.outputs, starts, items);
  check_launch(op);
}

}  // namespace hadal::kernels::cuda
