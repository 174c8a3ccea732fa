// RoPE on CUDA, bound by memory: a thread turns one piece (16 bytes of a head's pairs, or one pair where heads are not aligned).
// A block's first dim runs over the pieces of a token's heads, its second over tokens.
#include <algorithm>
#include <bit>

#include "kernels/cuda/check.h"
#include "kernels/cuda/floats.cuh"
#include "kernels/cuda/visit.h"
#include "kernels/rope.h"

namespace hadal::kernels::cuda {
namespace {

using std::int64_t;

constexpr unsigned kBlock = 256;

struct Layout {
  unsigned tokens, sequence;  ///< rows, and rows of one sequence
  unsigned items, pieces;     ///< of a token, of a head
  int pairs;                  ///< of a head
  int64_t x_token_stride, x_head_stride, y_token_stride, y_head_stride;
  int64_t position_start, position_stride;
  float sign;
};

/// N elements; a lone pair may lie anywhere.
template <int N, class T>
__device__ Floats<N> load_pairs(const T* from) {
  if constexpr (N == 2) {
    return {to_float(from[0]), to_float(from[1])};
  } else {
    return load_floats<N>(from);
  }
}

template <class T, int N>
__device__ void store_pairs(T* to, const Floats<N>& floats) {
  if constexpr (N == 2) {
    to[0] = from_float<T>(floats.at[0]);
    to[1] = from_float<T>(floats.at[1]);
  } else {
    store_floats(to, floats);
  }
}

/// x may be y: a thread reads and writes the same elements. N elements a piece.
template <class T, int N, bool Accumulate>
__global__ __launch_bounds__(kBlock) void rotate(Layout l, const T* x, T* y, const float* cosines, const float* sines) {
  const unsigned token = blockIdx.x * blockDim.y + threadIdx.y;
  if (token >= l.tokens) return;
  const int64_t table = (l.position_start + token % l.sequence * l.position_stride) * l.pairs;
  for (unsigned item = threadIdx.x; item < l.items; item += blockDim.x) {
    const unsigned head = item / l.pieces;
    const int at = static_cast<int>(item % l.pieces) * N;
    T* const to = y + token * l.y_token_stride + head * l.y_head_stride + at;
    const Floats<N> from = load_pairs<N>(x + token * l.x_token_stride + head * l.x_head_stride + at);
    const Floats<N / 2> c = load_floats<N / 2>(cosines + table + at / 2), s = load_floats<N / 2>(sines + table + at / 2);
    Floats<N> turned{};
    if constexpr (Accumulate) turned = load_pairs<N>(to);
#pragma unroll
    for (int i = 0; i < N / 2; ++i) {
      const float even = from.at[2 * i], odd = from.at[2 * i + 1], sine = l.sign * s.at[i];
      turned.at[2 * i] += c.at[i] * even - sine * odd;
      turned.at[2 * i + 1] += sine * even + c.at[i] * odd;
    }
    store_pairs(to, turned);
  }
}

void rope(Stream& stream, const Rope& args) {
  const ConstHeads& x = args.x;
  const Heads& y = args.y;
  HADAL_CHECK(x.tokens < (int64_t{1} << 31) && x.heads * x.width < (int64_t{1} << 31), "{} rows of {} heads of {}", x.tokens,
              x.heads, x.width);
  Layout l{.tokens = static_cast<unsigned>(x.tokens),
           .sequence = static_cast<unsigned>(x.tokens / args.batch),
           .items = 0,
           .pieces = 0,
           .pairs = static_cast<int>(x.width / 2),
           .x_token_stride = x.token_stride,
           .x_head_stride = x.head_stride,
           .y_token_stride = y.token_stride,
           .y_head_stride = y.head_stride,
           .position_start = args.position_start,
           .position_stride = args.position_stride,
           .sign = args.transpose ? -1.0f : 1.0f};
  const float* cosines = args.cosines.as<float>();
  const float* sines = args.sines.as<float>();
  visit(x.dtype, [&]<class T>() {
    const auto* from = static_cast<const T*>(x.data);
    auto* to = static_cast<T*>(y.data);
    const auto start = [&]<int N>() {
      l.pieces = static_cast<unsigned>(x.width / N);
      l.items = l.pieces * static_cast<unsigned>(x.heads);
      const dim3 block(std::min(kBlock, std::bit_ceil(l.items)), kBlock / std::min(kBlock, std::bit_ceil(l.items)));
      const unsigned blocks = (l.tokens + block.y - 1) / block.y;
      if (args.accumulate) {
        rotate<T, N, true><<<blocks, block, 0, native(stream)>>>(l, from, to, cosines, sines);
      } else {
        rotate<T, N, false><<<blocks, block, 0, native(stream)>>>(l, from, to, cosines, sines);
      }
    };
    const bool aligned = aligned16(from, x.token_stride) && aligned16(from, x.head_stride) && aligned16(to, y.token_stride) &&
                         aligned16(to, y.head_stride) && aligned16(from, x.width) && aligned16(cosines, 4) && aligned16(sines, 4);
    if (aligned) {
      start.template operator()<kPiece<T>>();
    } else {
      start.template operator()<2>();
    }
  });
  check_launch(Rope::kName);
}

const RegisterCuda<Rope> registered{rope};

}  // namespace
}  // namespace hadal::kernels::cuda
