// Forward of nsa_heads.h: scores, the softmax over the 64 keys of a block and the weighted values, all in one pass, since a row is done with
// the block's keys at once. The next queries are fetched while the softmax of these is made: scores are the only reader of their tile.
#include "kernels/cuda/check.h"
#include "kernels/cuda/nsa_heads.h"
#include "kernels/cuda/nsa_heads_combine.cuh"
#include "kernels/cuda/nsa_heads_tiles.cuh"

namespace hadal::kernels::cuda {
namespace {


// Scores to probabilities over the largest of a row, whose logarithm to the base 2 and inverse sum come back.
__device__ __forceinline__ void softmax_rows(float (&s)[32], float scale, const int (&limit)[2], float (&lse)[2], float (&inverse)[2]) {
  const int pair = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float largest = -INFINITY, sum = 0;
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      float& x = s[i / 2 * 4 + 2 * half + i % 2];
      x = i / 2 * 8 + pair * 2 + i % 2 <= limit[half] ? x * scale : -INFINITY;
      largest = fmaxf(largest, x);
    }
    largest = quad_max(largest);
    const float base = largest == -INFINITY ? 0.0f : largest;  // a row that is not there
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      float& x = s[i / 2 * 4 + 2 * half + i % 2];
      x = fast_exp2(x - base);
      sum += x;
    }
    sum = quad_sum(sum);
    lse[half] = base + log2f(sum);
    inverse[half] = 1.0f / sum;
  }
}

template <int kWidth, int kShared, int kValue>
__global__ void __launch_bounds__(kHeadThreads, 3) forward_kernel(SelectedInputs<bf16> in, HeadPiecesView pieces, HeadPartials to) {
  extern __shared__ unsigned char memory[];
  const SelectedSizes& sizes = in.sizes;
  const HeadWork work(sizes, pieces, to);
  if (work.num_keys <= 0 || work.tiles == 0) return;
  const std::uint32_t keys = first_tile(memory), values = keys + tile_bytes(kWidth), queries = values + tile_bytes(kValue);
  const float scale = sizes.scale * kLog2E;
  copy_keys<kWidth>(keys, keys_of<kShared>(in, work));
  copy_keys<kValue>(values, values_of(in, work));
  QueryGatherer gatherer(sizes, pieces, work);
  gatherer.find(0);
  gatherer.copy<kWidth>(queries, in.q);
  commit_copies();
  for (int tile = 0; tile < work.tiles; ++tile) {
    const OwnRows rows(sizes, pieces, work, to, tile);
    const bool more = tile + 1 < work.tiles;
    if (more) gatherer.find(tile + 1);
    wait_copies<0>();
    publish_copies();
    __syncthreads();
    float s[32], out[kValue / 2], lse[2], inverse[2];
    std::uint32_t p[16];
    hopper::product_fence();
    multiply_tiles<kWidth>(s, hopper::fresh(queries), hopper::fresh(keys));
    hopper::product_commit();
    hopper::product_wait<0>();
    hopper::hold(s);
    __syncthreads();  // all have read the queries
    if (more) gatherer.copy<kWidth>(queries, in.q);
    commit_copies();
    softmax_rows(s, scale, rows.limit, lse, inverse);
    hopper::pack(s, p);
    hopper::clear(out);
    hopper::hold(p);
    hopper::hold(out);
    hopper::product_fence();
    add_tile(out, p, hopper::fresh(values));
    hopper::product_commit();
    hopper::product_wait<0>();
    hopper::hold(out);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (rows.limit[half] < 0) continue;
      store_partial(to.rows + rows.to[half] * kValue, out, half, inverse[half]);
      if (threadIdx.x % 4 == 0) to.lse[rows.to[half]] = lse[half];
    }
  }
}

template <int kWidth, int kShared, int kValue>
void start(Stream& stream, const NsaSelectedForward& args) {
  const SelectedInputs<bf16> in = selected_inputs<bf16>(args);
  const HeadPieces pieces(stream, in.sizes, in.blocks, kHeadPieceTiles);
  const PartialRoom room(stream, in.sizes, kValue, true);
  const auto kernel = forward_kernel<kWidth, kShared, kValue>;
  constexpr std::size_t kBytes = memory_of_tiles(2 * kWidth + kValue);
  allow_shared_memory(kernel, kBytes, args.kName);
  room.for_each_turn([&](const HeadPartials& partials) {
    const dim3 grid(static_cast<unsigned>(pieces.most()), static_cast<unsigned>(partials.heads), static_cast<unsigned>(partials.key_tiles));
    kernel<<<grid, kHeadThreads, kBytes, native(stream)>>>(in, pieces.view(), partials);
    check_launch(args.kName);
    combine_outputs(stream, in, partials, kValue, rows_of<bf16>(args.o), args.lse.as<float>());
  });
}

}  // namespace

bool heads_forward(Stream& stream, const NsaSelectedForward& args) {
  const SelectedSizes sizes = selected_sizes(args);
  if (args.q.dtype != DType::kBf16 || sizes.keys == 0 || !is_key_major(shape_of(sizes)) || !aligned16(args.q) || !aligned16(args.k) ||
      !aligned16(args.k_shared) || !aligned16(args.v) || !aligned16(args.o)) {
    return false;
  }
  return visit_widths(sizes, [&]<int kWidth, int kShared, int kValue>() { start<kWidth, kShared, kValue>(stream, args); });
}

}  // namespace hadal::kernels::cuda
