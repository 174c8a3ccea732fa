// Counting sort of (block, token) pairs that keeps the order of tokens: a warp owns a piece of consecutive tokens, walks them in
// order and counts per block; a scan over (block, piece) gives every piece its place; a second walk writes the tokens there. A
// token's blocks differ, so lanes never meet, and no atomics are needed.
#include <cub/device/device_scan.cuh>

#include <algorithm>
#include <bit>

#include "kernels/cuda/check.h"
#include "kernels/cuda/nsa_index.cuh"

namespace hadal::kernels::cuda {
namespace {

constexpr int kWarps = 4;

struct Pieces {
  std::int64_t tokens_of_piece, count;
};

// counters [B, Gs, blocks, pieces]; entries null: count, else write entries and move the counters on.
__global__ void __launch_bounds__(kWarps* kWarp)
    walk_kernel(SelectedSizes sizes, Pieces pieces, const std::int32_t* blocks, std::int32_t* counters, std::int32_t* entries,
                int place_bits) {
  const std::int64_t task = static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (task >= sizes.batch * sizes.groups * pieces.count) return;
  const int lane = threadIdx.x % kWarp;
  const std::int64_t list = task / pieces.count, piece = task % pieces.count, b = list / sizes.groups, group = list % sizes.groups;
  const std::int64_t first = piece * pieces.tokens_of_piece;
  const std::int64_t last = first + pieces.tokens_of_piece < sizes.tokens ? first + pieces.tokens_of_piece : sizes.tokens;
  std::int32_t* const own = counters + list * sizes.num_blocks * pieces.count + piece;
  for (std::int64_t t = first; t < last; ++t) {
    const std::int32_t* const from = blocks + ((b * sizes.tokens + t) * sizes.groups + group) * sizes.chosen;
    for (int slot = lane; slot < sizes.chosen; slot += kWarp) {
      const std::int64_t block = from[slot];
      if (block < 0 || block >= sizes.num_blocks || block * sizes.select_block > sizes.query_start + t) continue;
      std::int32_t& counter = own[block * pieces.count];
      if (entries != nullptr) entries[counter] = static_cast<std::int32_t>(t) << place_bits | slot;
      ++counter;
    }
    __syncwarp();  // the next token may count the same block on another lane
  }
}

}  // namespace

BlockLists::BlockLists(Stream& stream, const SelectedSizes& sizes, const std::int32_t* blocks)
    : groups_(sizes.groups),
      blocks_(sizes.num_blocks),
      pieces_(static_cast<int>(block_list_sizes(shape_of(sizes)).pieces)),
      place_bits_(std::bit_width(static_cast<unsigned>(sizes.chosen))),
      tokens_of_piece_(block_list_sizes(shape_of(sizes)).tokens_of_piece) {
  const char* const op = "nsa: lists of tokens by block";
  const auto [tokens_of_piece, count, counters, entries] = block_list_sizes(shape_of(sizes));
  const Pieces pieces{tokens_of_piece, count};
  const std::int64_t lists = sizes.batch * sizes.groups;
  HADAL_CHECK(counters < INT32_MAX && entries < INT32_MAX, "{}: {} counters, {} entries", op, counters, entries);
  HADAL_CHECK(sizes.tokens < INT32_MAX >> place_bits_, "{}: {} tokens with {} blocks each", op, sizes.tokens, sizes.chosen);
  const auto queue = native(stream);
  Tensor counts = Tensor::zeros({counters + 1}, DType::kI32, stream.device());
  starts_ = Tensor::empty({counters + 1}, DType::kI32, stream.device());
  entries_ = Tensor::empty({std::max<std::int64_t>(entries, 1)}, DType::kI32, stream.device());
  const auto grid = static_cast<unsigned>((lists * pieces.count + kWarps - 1) / kWarps);
  walk_kernel<<<grid, kWarps * kWarp, 0, queue>>>(sizes, pieces, blocks, counts.as<std::int32_t>(), nullptr, place_bits_);
  check_launch(op);
  const auto scan = [&](void* scratch, std::size_t& bytes) {
    check(cub::DeviceScan::ExclusiveSum(scratch, bytes, counts.as<std::int32_t>(), starts_.as<std::int32_t>(), static_cast<int>(counters + 1), queue),
          op);
  };
  std::size_t bytes = 0;
  scan(nullptr, bytes);
  Tensor scratch = Tensor::empty({static_cast<std::int64_t>(std::max<std::size_t>(bytes, 1))}, DType::kU8, stream.device());
  scan(scratch.view().data, bytes);
  check(cudaMemcpyAsync(counts.view().data, starts_.view().data, counts.bytes(), cudaMemcpyDeviceToDevice, queue), op);
  walk_kernel<<<grid, kWarps * kWarp, 0, queue>>>(sizes, pieces, blocks, counts.as<std::int32_t>(), entries_.as<std::int32_t>(), place_bits_);
  check_launch(op);
}

BlockListsView BlockLists::view() const { return view(0, pieces_ * tokens_of_piece_); }

BlockListsView BlockLists::view(std::int64_t first, std::int64_t last) const {
  const auto piece = [&](std::int64_t token) {
    return static_cast<int>(std::min<std::int64_t>((token + tokens_of_piece_ - 1) / tokens_of_piece_, pieces_));
  };
  return {starts_.as<std::int32_t>(), entries_.as<std::int32_t>(), groups_, blocks_, pieces_, place_bits_, piece(first), piece(last)};
}

}  // namespace hadal::kernels::cuda
