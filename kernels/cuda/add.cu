// y = a + b on CUDA, bound by memory: two pieces of 16 bytes a thread, single elements where something is not aligned.
#include "kernels/cuda/check.h"
#include "kernels/cuda/floats.cuh"
#include "kernels/cuda/visit.h"
#include "kernels/rows.h"

namespace hadal::kernels::cuda {
namespace {

using std::int64_t;

constexpr int kBlock = 256, kEach = 2;

/// y may be a or b: a thread reads the elements that it writes, first.
template <class T, int N>
__global__ __launch_bounds__(kBlock) void add_pieces(int64_t n, const T* a, const T* b, T* y) {
  const int64_t first = (static_cast<int64_t>(blockIdx.x) * (kBlock * kEach) + threadIdx.x) * N;
  Pack<T, N> as[kEach], bs[kEach];
#pragma unroll
  for (int e = 0; e < kEach; ++e) {
    const int64_t i = first + e * kBlock * N;
    if (i >= n) continue;
    as[e] = load_pack<N>(a + i);
    bs[e] = load_pack<N>(b + i);
  }
#pragma unroll
  for (int e = 0; e < kEach; ++e) {
    const int64_t i = first + e * kBlock * N;
    if (i >= n) continue;
    Floats<N> sum = floats_of(as[e]);
    const Floats<N> other = floats_of(bs[e]);
#pragma unroll
    for (int j = 0; j < N; ++j) sum.at[j] += other.at[j];
    store_floats(y + i, sum);
  }
}

template <class T, int N>
void start(Stream& stream, int64_t n, const T* a, const T* b, T* y) {
  const int64_t of_block = int64_t{kBlock} * kEach * N, blocks = (n + of_block - 1) / of_block;
  HADAL_CHECK(blocks < (int64_t{1} << 31), "{} elements", n);
  if (blocks > 0) add_pieces<T, N><<<static_cast<unsigned>(blocks), kBlock, 0, native(stream)>>>(n, a, b, y);
}

void add(Stream& stream, const Add& args) {
  const int64_t n = args.y.numel();
  visit(args.y.dtype, [&]<class T>() {
    const auto* a = static_cast<const T*>(args.a.data);
    const auto* b = static_cast<const T*>(args.b.data);
    auto* y = static_cast<T*>(args.y.data);
    constexpr int64_t kCount = kPiece<T>;
    const int64_t whole = aligned16(a, kCount) && aligned16(b, kCount) && aligned16(y, kCount) ? n / kCount * kCount : 0;
    start<T, kPiece<T>>(stream, whole, a, b, y);
    start<T, 1>(stream, n - whole, a + whole, b + whole, y + whole);
  });
  check_launch(Add::kName);
}

const RegisterCuda<Add> registered{add};

}  // namespace
}  // namespace hadal::kernels::cuda
