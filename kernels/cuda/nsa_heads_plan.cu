#include "kernels/cuda/nsa_heads_plan.cuh"

#include <cub/block/block_scan.cuh>

#include "kernels/cuda/check.h"

namespace hadal::kernels::cuda {
namespace {

constexpr int kThreads = 1024;

// grid Gs: the pieces of a group's lists, in the order of the blocks.
__global__ void __launch_bounds__(kThreads)
    pieces_kernel(SelectedSizes sizes, BlockListsView lists, int piece_tiles, int most, HeadPiece* pieces, std::int32_t* counts) {
  using Scan = cub::BlockScan<int, kThreads>;
  __shared__ typename Scan::TempStorage scratch[2];
  const int group = static_cast<int>(blockIdx.x), batch = static_cast<int>(sizes.batch), all = sizes.num_blocks * batch;
  HeadPiece* const to = pieces + static_cast<std::int64_t>(group) * most;
  int before = 0, slots_before = 0;
  for (int base = 0; base < all; base += kThreads) {
    const int i = base + static_cast<int>(threadIdx.x), block = i / batch, b = i % batch;
    const int begin = i < all ? lists.begin(b, group, block) : 0, rows = i < all ? lists.end(b, group, block) - begin : 0;
    const int tiles = (rows + kHeadTile - 1) / kHeadTile, count = i < all ? max(1, (tiles + piece_tiles - 1) / piece_tiles) : 0;
    int at, sum, slot, slots;
    Scan(scratch[0]).ExclusiveSum(count, at, sum);
    Scan(scratch[1]).ExclusiveSum(count > 1 ? count : 0, slot, slots);
    for (int n = 0; n < count; ++n) {
      const int first = tiles * n / count * kHeadTile, last = min(rows, tiles * (n + 1) / count * kHeadTile);
      to[before + at + n] = {b, block, begin + first, last - first, n, count, slots_before + slot + n};
    }
    before += sum;
    slots_before += slots;
    __syncthreads();  // the scans' memory is used again
  }
  if (threadIdx.x == 0) counts[group] = before;
}

}  // namespace

HeadPieces::HeadPieces(Stream& stream, const SelectedSizes& sizes, const std::int32_t* blocks, int tiles) : lists_(stream, sizes, blocks) {
  const char* const op = "nsa: pieces of the lists of tokens by block";
  const auto [most, slots] = head_piece_counts(shape_of(sizes), tiles);
  HADAL_CHECK(most + slots < INT32_MAX, "{}: {} pieces, {} of lists that are cut", op, most, slots);
  most_ = static_cast<int>(most);
  most_slots_ = static_cast<int>(slots);
  pieces_ = Tensor::empty({sizes.groups, most_, static_cast<std::int64_t>(sizeof(HeadPiece))}, DType::kU8, stream.device());
  counts_ = Tensor::empty({sizes.groups}, DType::kI32, stream.device());
  pieces_kernel<<<sizes.groups, kThreads, 0, native(stream)>>>(sizes, lists_.view(), tiles, most_, static_cast<HeadPiece*>(pieces_.view().data),
                                                               counts_.as<std::int32_t>());
  check_launch(op);
}

HeadPiecesView HeadPieces::view() const {
  return {lists_.view(), static_cast<const HeadPiece*>(pieces_.view().data), counts_.as<std::int32_t>(), most_};
}

}  // namespace hadal::kernels::cuda
