// AdamW and the sum of squares on CUDA, bound by memory: a thread takes four elements of each array in accesses of 16 bytes, all
// loads before the first use.
#include <algorithm>

#include "kernels/adamw.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/floats.cuh"
#include "kernels/cuda/visit.h"

namespace hadal::kernels::cuda {
namespace {

using std::int64_t;

constexpr int kBlock = 256;

struct Settings {
  float beta1, beta2, eps, ema_decay;
  double weight_decay, clip_norm;
  const double* norm_squared;  ///< or null
  const double* rates;         ///< lr, 1 - beta1^t, 1 - beta2^t
};

/// What one step makes of them, the same for all elements.
struct Factors {
  float grad;  ///< NaN: the norm is not finite and nothing is to be updated
  float step_size, inverse_sqrt_correction2, keep;
};

template <class Moment>
struct Arrays {
  const float* grad;
  float* value;
  Moment* m;
  Moment* v;
  float* ema;              ///< or null
  __nv_bfloat16* working;  ///< or null
};

__device__ float grad_factor(const Settings& s) {
  if (s.norm_squared == nullptr) return 1.0f;
  const double norm = sqrt(*s.norm_squared);
  if (!isfinite(norm)) return NAN;
  return s.clip_norm > 0 && norm > s.clip_norm ? static_cast<float>(s.clip_norm / norm) : 1.0f;
}

/// In f64, by one thread of the block.
__device__ Factors factors_of(const Settings& s) {
  __shared__ Factors shared;
  if (threadIdx.x == 0) {
    const double lr = s.rates[0];
    shared = {.grad = grad_factor(s),
              .step_size = static_cast<float>(lr / s.rates[1]),
              .inverse_sqrt_correction2 = static_cast<float>(1.0 / sqrt(s.rates[2])),
              .keep = static_cast<float>(1.0 - lr * s.weight_decay)};
  }
  __syncthreads();
  return shared;
}

template <class Moment, int N>
__global__ __launch_bounds__(kBlock) void update(int64_t n, Settings s, Arrays<Moment> a) {
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * kBlock + threadIdx.x) * N;
  const bool inside = i < n;
  Pack<float, N> grads{}, values{};
  Pack<Moment, N> firsts{}, seconds{};
  if (inside) {
    grads = load_pack<N>(a.grad + i);
    values = load_pack<N>(a.value + i);
    firsts = load_pack<N>(a.m + i);
    seconds = load_pack<N>(a.v + i);
  }
  const Factors f = factors_of(s);
  if (!inside || isnan(f.grad)) return;
  Floats<N> m, v, value;
#pragma unroll
  for (int j = 0; j < N; ++j) {
    const float g = grads.at[j] * f.grad;
    m.at[j] = s.beta1 * to_float(firsts.at[j]) + (1.0f - s.beta1) * g;
    v.at[j] = s.beta2 * to_float(seconds.at[j]) + (1.0f - s.beta2) * g * g;
    value.at[j] = values.at[j] * f.keep - f.step_size * m.at[j] / (sqrtf(v.at[j]) * f.inverse_sqrt_correction2 + s.eps);
  }
  store_floats(a.m + i, m);
  store_floats(a.v + i, v);
  store_floats(a.value + i, value);
  if (a.working != nullptr) store_floats(a.working + i, value);
  if (a.ema == nullptr) return;
  Floats<N> ema = load_floats<N>(a.ema + i);
#pragma unroll
  for (int j = 0; j < N; ++j) ema.at[j] = s.ema_decay * ema.at[j] + (1.0f - s.ema_decay) * value.at[j];
  store_floats(a.ema + i, ema);
}

template <class Moment>
Arrays<Moment> from(Arrays<Moment> a, int64_t begin) {
  return {a.grad + begin,
          a.value + begin,
          a.m + begin,
          a.v + begin,
          a.ema == nullptr ? nullptr : a.ema + begin,
          a.working == nullptr ? nullptr : a.working + begin};
}

template <class Moment, int N>
void start(Stream& stream, int64_t n, const Settings& settings, const Arrays<Moment>& arrays) {
  const int64_t blocks = (n / N + kBlock - 1) / kBlock;
  HADAL_CHECK(blocks < (int64_t{1} << 31), "{} elements", n);
  if (blocks > 0) update<Moment, N><<<static_cast<unsigned>(blocks), kBlock, 0, native(stream)>>>(n / N * N, settings, arrays);
}

void adamw(Stream& stream, const AdamW& args) {
  const int64_t n = args.value.numel();
  const Settings settings{.beta1 = static_cast<float>(args.beta1),
                          .beta2 = static_cast<float>(args.beta2),
                          .eps = static_cast<float>(args.eps),
                          .ema_decay = static_cast<float>(args.ema_decay),
                          .weight_decay = args.weight_decay,
                          .clip_norm = args.clip_norm,
                          .norm_squared = args.grad_norm_squared.empty() ? nullptr : args.grad_norm_squared.as<double>(),
                          .rates = args.rates.as<double>()};
  visit(args.m.dtype, [&]<class Moment>() {
    const Arrays<Moment> arrays{args.grad.as<float>(),
                                args.value.as<float>(),
                                static_cast<Moment*>(args.m.data),
                                static_cast<Moment*>(args.v.data),
                                args.ema.empty() ? nullptr : args.ema.as<float>(),
                                args.working.empty() ? nullptr : static_cast<__nv_bfloat16*>(args.working.data)};
    const auto at = [](const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer); };
    const bool aligned =
        (at(arrays.grad) | at(arrays.value) | at(arrays.m) | at(arrays.v) | at(arrays.ema) | at(arrays.working)) % 16 == 0;
    const int64_t vectors = aligned ? n / 4 * 4 : 0;
    start<Moment, 4>(stream, vectors, settings, arrays);
    start<Moment, 1>(stream, n - vectors, settings, from(arrays, vectors));
  });
  check_launch(AdamW::kName);
}

// Each block sums one range; ranges are fixed by n alone.
constexpr int64_t kMostRanges = 1056;  ///< eight blocks on each of 132 multiprocessors
constexpr int64_t kLeastRange = int64_t{kBlock} * 32;

/// One block: sum of squares of elements [begin, end), on every thread. N elements a piece.
template <class T, int N>
__device__ double range_sum(const T* x, int64_t begin, int64_t end) {
  double sum = 0;
  const int64_t pieces = (end - begin) / N;
#pragma unroll 4
  for (int64_t p = threadIdx.x; p < pieces; p += kBlock) {
    const Floats<N> values = load_floats<N>(x + begin + p * N);
#pragma unroll
    for (int j = 0; j < N; ++j) sum += static_cast<double>(values.at[j]) * static_cast<double>(values.at[j]);
  }
  for (int64_t i = begin + pieces * N + threadIdx.x; i < end; i += kBlock) {
    const auto value = static_cast<double>(to_float(x[i]));
    sum += value * value;
  }
  return block_sum<kBlock>(sum);
}

/// partials[block] = its range's sum; alone, a block adds it to the result at once.
template <class T, int N>
__global__ __launch_bounds__(kBlock) void sum_ranges(const T* x, int64_t n, int64_t range, double* partials, double* result) {
  const int64_t begin = blockIdx.x * range;
  const double sum = range_sum<T, N>(x, begin, min(begin + range, n));
  if (threadIdx.x != 0) return;
  if (gridDim.x == 1) {
    *result += sum;
  } else {
    partials[blockIdx.x] = sum;
  }
}

__global__ __launch_bounds__(kBlock) void add_ranges(const double* partials, int ranges, double* result) {
  double sum = 0;
  for (int i = static_cast<int>(threadIdx.x); i < ranges; i += kBlock) sum += partials[i];
  sum = block_sum<kBlock>(sum);
  if (threadIdx.x == 0) *result += sum;
}

void sum_squares(Stream& stream, const SumSquares& args) {
  const int64_t n = args.x.numel();
  if (n == 0) return;
  double* result = args.result.as<double>();
  // A multiple of a piece, so that every range begins aligned.
  const int64_t range = (std::max(kLeastRange, (n + kMostRanges - 1) / kMostRanges) + 7) / 8 * 8;
  const int64_t ranges = (n + range - 1) / range;
  Tensor partials = Tensor::empty({ranges}, DType::kF64, stream.device());
  visit(args.x.dtype, [&]<class T>() {
    const auto* x = static_cast<const T*>(args.x.data);
    if (aligned16(x, 8)) {
      sum_ranges<T, kPiece<T>>
          <<<static_cast<unsigned>(ranges), kBlock, 0, native(stream)>>>(x, n, range, partials.as<double>(), result);
    } else {
      sum_ranges<T, 1><<<static_cast<unsigned>(ranges), kBlock, 0, native(stream)>>>(x, n, range, partials.as<double>(), result);
    }
  });
  if (ranges > 1) add_ranges<<<1, kBlock, 0, native(stream)>>>(partials.as<double>(), static_cast<int>(ranges), result);
  check_launch(SumSquares::kName);
}

const RegisterCuda<AdamW> registered{adamw};
const RegisterCuda<SumSquares> registered_sum{sum_squares};

}  // namespace
}  // namespace hadal::kernels::cuda
