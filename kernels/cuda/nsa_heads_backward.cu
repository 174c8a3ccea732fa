// Gradients of nsa_heads.h where several query heads share a key head. Of queries: scores and d_p of 64 queries against the 64 keys of a
// block they chose, d_s, and their share of d_q; both tiles of queries are free for the next ones before d_s is made. Of keys:
// nsa_key_gradient.cu.
#include "kernels/cuda/check.h"
#include "kernels/cuda/nsa_heads.h"
#include "kernels/cuda/nsa_heads_gradient.cuh"
#include "kernels/cuda/nsa_key_gradient.cuh"
#include "kernels/cuda/nsa_selected.cuh"

namespace hadal::kernels::cuda {
namespace {

template <int kWidth, int kShared, int kValue>
__global__ void __launch_bounds__(kHeadThreads, 2)
    query_gradient_kernel(SelectedInputs<bf16> in, HeadPiecesView pieces, HeadRows<const bf16> d_o, HeadStatistics statistics, HeadPartials to) {
  extern __shared__ unsigned char memory[];
  const SelectedSizes& sizes = in.sizes;
  const HeadWork work(sizes, pieces, to);
  if (work.num_keys <= 0 || work.tiles == 0) return;
  const std::uint32_t keys = first_tile(memory), values = keys + tile_bytes(kWidth), queries = values + tile_bytes(kValue),
                      d_outputs = queries + tile_bytes(kWidth);
  copy_keys<kWidth>(keys, keys_of<kShared>(in, work));
  copy_keys<kValue>(values, values_of(in, work));
  QueryGatherer gatherer(sizes, pieces, work);
  gatherer.find(0);
  gatherer.copy<kWidth>(queries, in.q);
  gatherer.copy<kValue>(d_outputs, d_o);
  commit_copies();
  for (int tile = 0; tile < work.tiles; ++tile) {
    const OwnRows rows(sizes, pieces, work, to, tile);
    const bool more = tile + 1 < work.tiles;
    if (more) gatherer.find(tile + 1);
    const OwnStatistics own(sizes, statistics, work, rows);
    wait_copies<0>();
    publish_copies();
    __syncthreads();
    float s[32], d_p[32];
    std::uint32_t p[16], d_s[16];
    multiply_queries<kWidth, kValue>(s, d_p, queries, d_outputs, keys, values);
    __syncthreads();  // all have read the queries and d_o
    if (more) {
      gatherer.copy<kWidth>(queries, in.q);
      gatherer.copy<kValue>(d_outputs, d_o);
    }
    commit_copies();
    differentiate(p, d_s, s, d_p, sizes.scale * kLog2E, rows, own);
    hopper::hold(d_s);
    store_query_gradient<kWidth>(d_s, keys, to, rows, sizes.scale);
  }
}

template <int kWidth, int kShared, int kValue>
void query_gradient(Stream& stream, const NsaSelectedBackward& args, const float* delta) {
  const SelectedInputs<bf16> in = selected_inputs<bf16>(args);
  const HeadPieces pieces(stream, in.sizes, in.blocks, kHeadPieceTiles);
  const PartialRoom room(stream, in.sizes, kWidth, false);
  const auto kernel = query_gradient_kernel<kWidth, kShared, kValue>;
  constexpr std::size_t kBytes = memory_of_tiles(2 * (kWidth + kValue));
  allow_shared_memory(kernel, kBytes, args.kName);
  room.for_each_turn([&](const HeadPartials& partials) {
    const dim3 grid(static_cast<unsigned>(pieces.most()), static_cast<unsigned>(partials.heads), static_cast<unsigned>(partials.key_tiles));
    kernel<<<grid, kHeadThreads, kBytes, native(stream)>>>(in, pieces.view(), rows_of<bf16>(args.d_o), HeadStatistics{args.lse.as<float>(), delta},
                                                           partials);
    check_launch(args.kName);
    combine_sums(stream, in, partials, kWidth, rows_of<bf16>(args.d_q));
  });
}

}  // namespace

bool heads_backward(Stream& stream, const NsaSelectedBackward& args) {
  const SelectedSizes sizes = selected_sizes(args);
  if (args.q.dtype != DType::kBf16 || sizes.keys == 0 || args.q.tokens == 0 || !is_key_major(shape_of(sizes)) || !HeadSegments::possible(sizes) ||
      !aligned16(args.q) || !aligned16(args.k) || !aligned16(args.k_shared) || !aligned16(args.v) || !aligned16(args.d_o) ||
      !aligned16(args.d_q) || !aligned16(args.d_k) || !aligned16(args.d_v)) {
    return false;
  }
  return visit_widths(sizes, [&]<int kWidth, int kShared, int kValue>() {
    Tensor delta = Tensor::empty({args.q.tokens, sizes.heads}, DType::kF32, stream.device());
    row_products<bf16>(stream, sizes, rows_of<bf16>(args.o), rows_of<bf16>(args.d_o), delta.as<float>());
    if (sizes.heads_per_key() == 1) {
      own_keys_gradient<kWidth, kShared, kValue>(stream, args, delta.as<float>());
    } else {
      query_gradient<kWidth, kShared, kValue>(stream, args, delta.as<float>());
      mma_key_gradient(stream, args, delta.as<float>());
    }
  });
}

}  // namespace hadal::kernels::cuda
