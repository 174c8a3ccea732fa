// The gate of NSA's three branches: one pass over the branches each way, in 16-byte accesses where the head's width allows. A few lanes
// own a head of a row, so that the products <d_y, o_b> stay inside a warp; the bias's gradient is summed over every so-many-th row, so that
// rows which are read at the same time lie next to each other.
#include <algorithm>

#include "kernels/branch_gate.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/column_sums.h"
#include "kernels/cuda/floats.cuh"
#include "kernels/cuda/visit.h"

namespace hadal::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kLanes = 16;  // of one head
constexpr int kHeads = kThreads / kLanes;
constexpr int kRowsAtOnce = 2;
constexpr std::int64_t kLeastRows = 32, kMaxRuns = 1024;

template <class T>
struct Branches {
  T* at[3];
};

/// Rounded and stored by an instruction of 16 bytes where it is that much: here the compiler takes an ordinary store of a pack apart into
/// its elements, and the L2 cache then has eight writes for one.
template <int N, class T>
__device__ inline void store_whole(T* to, const Floats<N>& floats) {
  const Pack<T, N> pack = pack_of<T>(floats);
  if constexpr (sizeof(pack) == sizeof(uint4)) {
    const uint4 words = *reinterpret_cast<const uint4*>(&pack);
    asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(words.x), "r"(words.y), "r"(words.z), "r"(words.w) : "memory");
  } else {
    *reinterpret_cast<Pack<T, N>*>(to) = pack;
  }
}

__device__ inline float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

template <class T, class L, int kCount>
__global__ void __launch_bounds__(kThreads)
    forward_kernel(std::int64_t rows, int heads, int width, const L* logits, const float* bias, Branches<const T> o, float* g, T* y) {
  const std::int64_t index = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int pieces = width / kCount;
  if (index >= rows * heads * pieces) return;
  const std::int64_t row = index / pieces / heads;
  const int head = static_cast<int>(index / pieces % heads);
  Pack<T, kCount> from[3];
  Floats<kCount> sum{};
#pragma unroll
  for (int b = 0; b < 3; ++b) from[b] = load_pack<kCount>(o.at[b] + index * kCount);
#pragma unroll
  for (int b = 0; b < 3; ++b) {
    const std::int64_t at = row * 3 * heads + b * heads + head;
    const float gate = sigmoid(to_float(logits[at]) + bias[b * heads + head]);
    if (index % pieces == 0) g[at] = gate;
    const Floats<kCount> values = floats_of(from[b]);
#pragma unroll
    for (int i = 0; i < kCount; ++i) sum.at[i] += gate * values.at[i];
  }
  store_floats(y + index * kCount, sum);
}

// grid (groups of kHeads heads, runs); run r takes rows r, r + runs, ...; partial [runs, 3H].
template <class T, class L, int kCount>
__global__ void __launch_bounds__(kThreads, 3) backward_kernel(std::int64_t rows, int heads, int width, const float* g, Branches<const T> o,
                                                               const T* d_y, Branches<T> d_o, L* d_logits, float* partial) {
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  const int head = static_cast<int>(blockIdx.x) * kHeads + static_cast<int>(threadIdx.x) / kLanes;
  const std::int64_t run = blockIdx.y, runs = gridDim.y;
  const bool active = head < heads;  // the others take part in the shuffles
  float d_bias[3] = {};
  for (std::int64_t row0 = run; row0 < rows; row0 += kRowsAtOnce * runs) {
    const std::int64_t left = (rows - row0 + runs - 1) / runs;
    const int count = static_cast<int>(left < kRowsAtOnce ? left : kRowsAtOnce);
    float gate[kRowsAtOnce][3] = {}, product[kRowsAtOnce][3] = {};
    if (active) {
#pragma unroll
      for (int r = 0; r < kRowsAtOnce; ++r) {
#pragma unroll
        for (int b = 0; b < 3; ++b) gate[r][b] = r < count ? g[(row0 + r * runs) * 3 * heads + b * heads + head] : 0.0f;
      }
      for (int c = lane * kCount; c < width; c += kLanes * kCount) {
        Pack<T, kCount> d_y_here[kRowsAtOnce], o_here[kRowsAtOnce][3];
        // All loads before the first use.
#pragma unroll
        for (int r = 0; r < kRowsAtOnce; ++r) {
          const std::int64_t at = ((row0 + (r < count ? r * runs : 0)) * heads + head) * width + c;
          d_y_here[r] = load_pack<kCount>(d_y + at);
#pragma unroll
          for (int b = 0; b < 3; ++b) o_here[r][b] = load_pack<kCount>(o.at[b] + at);
        }
#pragma unroll
        for (int r = 0; r < kRowsAtOnce; ++r) {
          if (r >= count) continue;
          const Floats<kCount> dy = floats_of(d_y_here[r]);
#pragma unroll
          for (int b = 0; b < 3; ++b) {
            const Floats<kCount> from = floats_of(o_here[r][b]);
            Floats<kCount> to;
#pragma unroll
            for (int i = 0; i < kCount; ++i) {
              product[r][b] += dy.at[i] * from.at[i];
              to.at[i] = gate[r][b] * dy.at[i];
            }
            store_whole(d_o.at[b] + ((row0 + r * runs) * heads + head) * width + c, to);
          }
        }
      }
    }
#pragma unroll
    for (int r = 0; r < kRowsAtOnce; ++r) {
#pragma unroll
      for (int b = 0; b < 3; ++b) {
#pragma unroll
        for (int step = kLanes / 2; step > 0; step /= 2) product[r][b] += __shfl_xor_sync(0xffffffffu, product[r][b], step);
        const float d_logit = product[r][b] * gate[r][b] * (1.0f - gate[r][b]);
        d_bias[b] += d_logit;
        if (active && lane == 0 && r < count) d_logits[(row0 + r * runs) * 3 * heads + b * heads + head] = from_float<L>(d_logit);
      }
    }
  }
  if (active && lane == 0) {
#pragma unroll
    for (int b = 0; b < 3; ++b) partial[run * 3 * heads + b * heads + head] = d_bias[b];
  }
}

// body.operator()<T, L, kCount>(): T of the branches, L of the logits (T or f32), elements at once.
template <class Body>
void visit_gate(DType branches, DType logits, std::int64_t width, std::initializer_list<const void*> pointers, const Body& body) {
  visit(branches, [&]<class T>() {
    constexpr int kCount = kPiece<T>;
    const bool whole =
        width % kCount == 0 && std::ranges::all_of(pointers, [](const void* at) { return reinterpret_cast<std::uintptr_t>(at) % 16 == 0; });
    const auto with_logits = [&]<class L>() { whole ? body.template operator()<T, L, kCount>() : body.template operator()<T, L, 1>(); };
    logits == DType::kF32 ? with_logits.template operator()<float>() : with_logits.template operator()<T>();
  });
}

void forward(Stream& stream, const BranchGateForward& args) {
  const std::int64_t rows = args.g.shape[0], heads = args.heads;
  if (args.y.numel() == 0) return;
  const std::int64_t width = args.y.numel() / rows / heads;
  visit_gate(args.y.dtype, args.logits.dtype, width, {args.o[0].data, args.o[1].data, args.o[2].data, args.y.data},
             [&]<class T, class L, int kCount>() {
               const auto data = [](const ConstView& x) { return static_cast<const T*>(x.data); };
               const std::int64_t threads = args.y.numel() / kCount;
               forward_kernel<T, L, kCount><<<static_cast<unsigned>((threads + kThreads - 1) / kThreads), kThreads, 0, native(stream)>>>(
                   rows, static_cast<int>(heads), static_cast<int>(width), static_cast<const L*>(args.logits.data), args.bias.as<float>(),
                   {{data(args.o[0]), data(args.o[1]), data(args.o[2])}}, args.g.as<float>(), static_cast<T*>(args.y.data));
               check_launch(args.kName);
             });
}

void backward(Stream& stream, const BranchGateBackward& args) {
  const std::int64_t rows = args.g.shape[0], heads = args.heads, gates = 3 * heads;
  if (args.d_y.numel() == 0) return;
  const std::int64_t width = args.d_y.numel() / rows / heads;
  const std::int64_t runs = std::min((rows + kLeastRows - 1) / kLeastRows, kMaxRuns);
  Tensor partial = Tensor::empty({runs, gates}, DType::kF32, stream.device());
  visit_gate(args.d_y.dtype, args.d_logits.dtype, width,
             {args.o[0].data, args.o[1].data, args.o[2].data, args.d_y.data, args.d_o[0].data, args.d_o[1].data, args.d_o[2].data},
             [&]<class T, class L, int kCount>() {
               const auto from = [&](int b) { return static_cast<const T*>(args.o[static_cast<std::size_t>(b)].data); };
               const auto to = [&](int b) { return static_cast<T*>(args.d_o[static_cast<std::size_t>(b)].data); };
               const dim3 grid(static_cast<unsigned>((heads + kHeads - 1) / kHeads), static_cast<unsigned>(runs));
               backward_kernel<T, L, kCount><<<grid, kThreads, 0, native(stream)>>>(
                   rows, static_cast<int>(heads), static_cast<int>(width), args.g.as<float>(), {{from(0), from(1), from(2)}},
                   static_cast<const T*>(args.d_y.data), {{to(0), to(1), to(2)}}, static_cast<L*>(args.d_logits.data), partial.as<float>());
               check_launch(args.kName);
             });
  add_column_sums(stream, args.kName, partial.as<float>(), runs, gates, args.d_bias.as<float>());
}

const RegisterCuda<BranchGateForward> registered_forward{forward};
const RegisterCuda<BranchGateBackward> registered_backward{backward};

}  // namespace
}  // namespace hadal::kernels::cuda
