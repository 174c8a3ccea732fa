// Attention over selected blocks on plain FP32 units, any sizes, f32 and bf16. A warp owns a row (token, head) and walks its blocks,
// a key a lane, with the online softmax; the gradients of keys are made key by key from the lists of tokens that read the key's
// block, in their order, so that no sum depends on chance.
#include <algorithm>
#include <type_traits>

#include "kernels/cuda/check.h"
#include "kernels/cuda/nsa_heads.h"
#include "kernels/cuda/nsa_latent.cuh"
#include "kernels/cuda/nsa_selected.cuh"
#include "kernels/cuda/visit.h"

namespace hadal::kernels::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kMaxWidth = 576, kMaxValue = 512;
constexpr int kWidthSteps = kMaxWidth / kWarp, kValueSteps = kMaxValue / kWarp;

template <class T>
struct SelectedGradients {
  const float* lse;
  const float* delta;  ///< [B*S, H], <d_o, o>
  HeadRows<const T> d_o;
  HeadRows<T> d_q, d_k, d_k_shared, d_v;
  float* shared_partial;  ///< [B*Sk, Hk, ws]: d_k_shared of each key head
  bool add_to_keys;
};

// <x, row>, a whole row a lane; x in shared memory.
template <class T>
__device__ float row_dot(const float* x, const T* row, int width) {
  float sum = 0;
  for (int c = 0; c < width; ++c) sum += x[c] * to_float(row[c]);
  return sum;
}

// What a warp needs of its row.
struct Row {
  std::int64_t token, b, position;
  int head, key_head, group;

  __device__ Row(const SelectedSizes& sizes, std::int64_t row)
      : token(row / sizes.heads),
        b(token / sizes.tokens),
        position(sizes.query_start + token % sizes.tokens),
        head(static_cast<int>(row % sizes.heads)),
        key_head(head / sizes.heads_per_key()),
        group(head / sizes.heads_per_group()) {}
};

// body(first key, keys <= 32) for every run of keys that the row sees; keys counted over the op's tokens.
template <class Body>
__device__ void for_each_run(const SelectedSizes& sizes, const Row& row, const std::int32_t* blocks, const Body& body) {
  const std::int32_t* const list = blocks + (row.token * sizes.groups + row.group) * sizes.chosen;
  for (int slot = 0; slot < sizes.chosen; ++slot) {
    const std::int64_t block = list[slot];
    if (block < 0) continue;
    const std::int64_t begin = block * sizes.select_block;
    std::int64_t end = begin + sizes.select_block;
    if (end > row.position + 1) end = row.position + 1;
    if (end > sizes.keys) end = sizes.keys;
    for (std::int64_t j = begin; j < end; j += kWarp) body(row.b * sizes.keys + j, static_cast<int>(end - j < kWarp ? end - j : kWarp));
  }
}

template <class T>
__global__ void __launch_bounds__(kWarps* kWarp) forward_kernel(SelectedInputs<T> in, HeadRows<T> o, float* lse) {
  extern __shared__ float shared[];
  const SelectedSizes& sizes = in.sizes;
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp, width = sizes.width();
  const std::int64_t index = static_cast<std::int64_t>(blockIdx.x) * kWarps + warp;
  if (index >= sizes.batch * sizes.tokens * sizes.heads) return;
  const Row row(sizes, index);
  float* const q = shared + warp * width;
  const T* const q_row = in.q.at(row.token, row.head);
  for (int c = lane; c < width; c += kWarp) q[c] = to_float(q_row[c]) * (sizes.scale * kLog2E);
  __syncwarp();
  float out[kValueSteps] = {};
  float row_max = -INFINITY, row_sum = 0;
  for_each_run(sizes, row, in.blocks, [&](std::int64_t first, int count) {
    float s = -INFINITY;
    if (lane < count) {
      s = row_dot(q, in.k.at(first + lane, row.key_head), sizes.key_width);
      if (sizes.shared_width > 0) s += row_dot(q + sizes.key_width, in.k_shared.at(first + lane, 0), sizes.shared_width);
    }
    const float largest = fmaxf(row_max, warp_max(s)), keep = exp2f(row_max - largest), p = exp2f(s - largest);
    row_max = largest;
    row_sum = row_sum * keep + warp_sum(p);
#pragma unroll
    for (int i = 0; i < kValueSteps; ++i) out[i] *= keep;
    for (int j = 0; j < count; ++j) {
      const float pj = __shfl_sync(0xffffffffu, p, j);
      const T* const v = in.v.at(first + j, row.key_head);
#pragma unroll
      for (int i = 0; i < kValueSteps; ++i) {
        const int c = lane + i * kWarp;
        if (c < sizes.value_width) out[i] += pj * to_float(v[c]);
      }
    }
  });
  const float inverse = row_sum == 0.0f ? 0.0f : 1.0f / row_sum;
  if (lane == 0) lse[index] = row_sum == 0.0f ? -INFINITY : row_max * kLn2 + logf(row_sum);
  T* const to = o.at(row.token, row.head);
#pragma unroll
  for (int i = 0; i < kValueSteps; ++i) {
    const int c = lane + i * kWarp;
    if (c < sizes.value_width) to[c] = from_float<T>(out[i] * inverse);
  }
}

template <class T>
__global__ void __launch_bounds__(kWarps* kWarp) query_gradient_kernel(SelectedInputs<T> in, SelectedGradients<T> grad) {
  extern __shared__ float shared[];
  const SelectedSizes& sizes = in.sizes;
  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp, width = sizes.width();
  const std::int64_t index = static_cast<std::int64_t>(blockIdx.x) * kWarps + warp;
  if (index >= sizes.batch * sizes.tokens * sizes.heads) return;
  const Row row(sizes, index);
  float* const q = shared + warp * (width + sizes.value_width);
  float* const d_o = q + width;
  const T* const q_row = in.q.at(row.token, row.head);
  const T* const d_o_row = grad.d_o.at(row.token, row.head);
  for (int c = lane; c < width; c += kWarp) q[c] = to_float(q_row[c]) * (sizes.scale * kLog2E);
  for (int c = lane; c < sizes.value_width; c += kWarp) d_o[c] = to_float(d_o_row[c]);
  __syncwarp();
  const float lse = grad.lse[index] * kLog2E, delta = grad.delta[index];
  float d_q[kWidthSteps] = {};
  for_each_run(sizes, row, in.blocks, [&](std::int64_t first, int count) {
    float ds = 0;
    if (lane < count) {
      float s = row_dot(q, in.k.at(first + lane, row.key_head), sizes.key_width);
      if (sizes.shared_width > 0) s += row_dot(q + sizes.key_width, in.k_shared.at(first + lane, 0), sizes.shared_width);
      ds = exp2f(s - lse) * (row_dot(d_o, in.v.at(first + lane, row.key_head), sizes.value_width) - delta) * sizes.scale;
    }
    for (int j = 0; j < count; ++j) {
      const float dsj = __shfl_sync(0xffffffffu, ds, j);
      const T* const k = in.k.at(first + j, row.key_head);
      const T* const k_shared = sizes.shared_width > 0 ? in.k_shared.at(first + j, 0) - sizes.key_width : k;
#pragma unroll
      for (int i = 0; i < kWidthSteps; ++i) {
        const int c = lane + i * kWarp;
        if (c < width) d_q[i] += dsj * to_float(c < sizes.key_width ? k[c] : k_shared[c]);
      }
    }
  });
  T* const to = grad.d_q.at(row.token, row.head);
#pragma unroll
  for (int i = 0; i < kWidthSteps; ++i) {
    const int c = lane + i * kWarp;
    if (c < width) to[c] = from_float<T>(d_q[i]);
  }
}

// A warp a key and key head.
template <class T>
__global__ void __launch_bounds__(kWarps* kWarp) key_gradient_kernel(SelectedInputs<T> in, SelectedGradients<T> grad, BlockListsView lists) {
  const SelectedSizes& sizes = in.sizes;
  const int lane = static_cast<int>(threadIdx.x) % kWarp, width = sizes.width(), value_width = sizes.value_width;
  const std::int64_t index = static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (index >= sizes.batch * sizes.keys * sizes.key_heads) return;
  const std::int64_t row = index / sizes.key_heads, b = row / sizes.keys, key = row % sizes.keys;
  const int kv = static_cast<int>(index % sizes.key_heads), block = static_cast<int>(key / sizes.select_block);
  const T* const k_row = in.k.at(row, kv);
  const T* const k_shared_row = sizes.shared_width > 0 ? in.k_shared.at(row, 0) - sizes.key_width : k_row;
  const T* const v_row = in.v.at(row, kv);
  float k[kWidthSteps], v[kValueSteps], d_k[kWidthSteps] = {}, d_v[kValueSteps] = {};
#pragma unroll
  for (int i = 0; i < kWidthSteps; ++i) {
    const int c = lane + i * kWarp;
    k[i] = c < width ? to_float(c < sizes.key_width ? k_row[c] : k_shared_row[c]) : 0.0f;
  }
#pragma unroll
  for (int i = 0; i < kValueSteps; ++i) v[i] = lane + i * kWarp < value_width ? to_float(v_row[lane + i * kWarp]) : 0.0f;

  const int first_head = kv * sizes.heads_per_key(), last_head = first_head + sizes.heads_per_key();
  for (int group = first_head / sizes.heads_per_group(); group * sizes.heads_per_group() < last_head; ++group) {
    const int head_begin = max(first_head, group * sizes.heads_per_group());
    const int head_end = min(last_head, (group + 1) * sizes.heads_per_group());
    for (int entry = lists.begin(b, group, block), end = lists.end(b, group, block); entry < end; ++entry) {
      const std::int64_t t = lists.token(lists.entries[entry]), token = b * sizes.tokens + t;
      if (sizes.query_start + t < key) continue;
      for (int head = head_begin; head < head_end; ++head) {
        const T* const q = in.q.at(token, head);
        const T* const d_o = grad.d_o.at(token, head);
        float s = 0, dp = 0;
#pragma unroll
        for (int i = 0; i < kWidthSteps; ++i) {
          if (lane + i * kWarp < width) s += to_float(q[lane + i * kWarp]) * k[i];
        }
#pragma unroll
        for (int i = 0; i < kValueSteps; ++i) {
          if (lane + i * kWarp < value_width) dp += to_float(d_o[lane + i * kWarp]) * v[i];
        }
        s = warp_sum(s);
        dp = warp_sum(dp);
        const float p = exp2f((s * sizes.scale - grad.lse[token * sizes.heads + head]) * kLog2E);
        const float ds = p * (dp - grad.delta[token * sizes.heads + head]) * sizes.scale;
#pragma unroll
        for (int i = 0; i < kWidthSteps; ++i) {
          if (lane + i * kWarp < width) d_k[i] += ds * to_float(q[lane + i * kWarp]);
        }
#pragma unroll
        for (int i = 0; i < kValueSteps; ++i) {
          if (lane + i * kWarp < value_width) d_v[i] += p * to_float(d_o[lane + i * kWarp]);
        }
      }
    }
  }
  const auto put = [&](T* to, float x) { *to = from_float<T>(grad.add_to_keys ? to_float(*to) + x : x); };
#pragma unroll
  for (int i = 0; i < kWidthSteps; ++i) {
    const int c = lane + i * kWarp;
    if (c < sizes.key_width) {
      put(grad.d_k.at(row, kv) + c, d_k[i]);
    } else if (c < width) {
      grad.shared_partial[index * sizes.shared_width + c - sizes.key_width] = d_k[i];
    }
  }
#pragma unroll
  for (int i = 0; i < kValueSteps; ++i) {
    const int c = lane + i * kWarp;
    if (c < value_width) put(grad.d_v.at(row, kv) + c, d_v[i]);
  }
}

template <class T>
__global__ void __launch_bounds__(kWarps* kWarp) row_product_kernel(SelectedSizes sizes, HeadRows<const T> o, HeadRows<const T> d_o, float* delta) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const std::int64_t index = static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (index >= sizes.batch * sizes.tokens * sizes.heads) return;
  const T* const x = o.at(index / sizes.heads, index % sizes.heads);
  const T* const y = d_o.at(index / sizes.heads, index % sizes.heads);
  float sum = 0;
  for (int c = lane; c < sizes.value_width; c += kWarp) sum += to_float(x[c]) * to_float(y[c]);
  sum = warp_sum(sum);
  if (lane == 0) delta[index] = sum;
}

constexpr int kRowLanes = 16;

// The same for rows that can be read in 16-byte pieces, kRowLanes lanes a row.
__global__ void __launch_bounds__(kWarps* kWarp)
    row_product16_kernel(SelectedSizes sizes, HeadRows<const __nv_bfloat16> o, HeadRows<const __nv_bfloat16> d_o, float* delta) {
  const int lane = static_cast<int>(threadIdx.x) % kRowLanes;
  const std::int64_t wanted = (static_cast<std::int64_t>(blockIdx.x) * kWarps * kWarp + threadIdx.x) / kRowLanes;
  const std::int64_t rows = sizes.batch * sizes.tokens * sizes.heads;
  const std::int64_t index = wanted < rows ? wanted : rows - 1;  // lanes stay together
  const __nv_bfloat16* const x = o.at(index / sizes.heads, index % sizes.heads);
  const __nv_bfloat16* const y = d_o.at(index / sizes.heads, index % sizes.heads);
  float sum = 0;
  for (int c = lane * 8; c < sizes.value_width; c += kRowLanes * 8) {
    const uint4 a = __ldg(reinterpret_cast<const uint4*>(x + c)), b = __ldg(reinterpret_cast<const uint4*>(y + c));
    const std::uint32_t left[4] = {a.x, a.y, a.z, a.w}, right[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 p = __bfloat1622float2(reinterpret_cast<const __nv_bfloat162&>(left[i]));
      const float2 q = __bfloat1622float2(reinterpret_cast<const __nv_bfloat162&>(right[i]));
      sum += p.x * q.x + p.y * q.y;
    }
  }
#pragma unroll
  for (int step = kRowLanes / 2; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
  if (lane == 0 && wanted < rows) delta[index] = sum;
}

bool in_pieces(const HeadRows<const __nv_bfloat16>& x) {
  return reinterpret_cast<std::uintptr_t>(x.data) % 16 == 0 && x.token_stride % 8 == 0 && x.head_stride % 8 == 0;
}

template <class T>
__global__ void sum_shared_kernel(SelectedSizes sizes, const float* partial, HeadRows<T> d_k_shared, bool add) {
  const std::int64_t index = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= sizes.batch * sizes.keys * sizes.shared_width) return;
  const std::int64_t row = index / sizes.shared_width, c = index % sizes.shared_width;
  float sum = 0;
  for (int kv = 0; kv < sizes.key_heads; ++kv) sum += partial[(row * sizes.key_heads + kv) * sizes.shared_width + c];
  T* const to = d_k_shared.at(row, 0) + c;
  *to = from_float<T>(add ? to_float(*to) + sum : sum);
}

unsigned blocks_for(std::int64_t items, std::int64_t per_block) { return static_cast<unsigned>((items + per_block - 1) / per_block); }

void check_sizes(const char* op, const SelectedSizes& sizes) {
  HADAL_CHECK(sizes.width() <= kMaxWidth && sizes.value_width <= kMaxValue, "{}: heads of {} and {}, at most {} and {} on CUDA", op, sizes.width(),
              sizes.value_width, kMaxWidth, kMaxValue);
}

template <class T>
void plain_forward(Stream& stream, const NsaSelectedForward& args) {
  const SelectedInputs<T> in = selected_inputs<T>(args);
  const SelectedSizes& sizes = in.sizes;
  const std::size_t shared = static_cast<std::size_t>(kWarps * sizes.width()) * sizeof(float);
  allow_shared_memory(forward_kernel<T>, shared, args.kName);
  forward_kernel<T>
      <<<blocks_for(args.q.tokens * sizes.heads, kWarps), kWarps * kWarp, shared, native(stream)>>>(in, rows_of<T>(args.o), args.lse.as<float>());
  check_launch(args.kName);
}

template <class T>
void plain_backward(Stream& stream, const NsaSelectedBackward& args) {
  const char* const op = args.kName;
  const SelectedInputs<T> in = selected_inputs<T>(args);
  const SelectedSizes& sizes = in.sizes;
  Tensor delta = Tensor::empty({args.q.tokens, sizes.heads}, DType::kF32, stream.device());
  Tensor partial = Tensor::empty({args.k.tokens, sizes.key_heads, sizes.shared_width}, DType::kF32, stream.device());
  const SelectedGradients<T> grad{args.lse.as<float>(),        delta.as<float>(),    rows_of<T>(args.d_o), rows_of<T>(args.d_q), rows_of<T>(args.d_k),
                                  rows_of<T>(args.d_k_shared), rows_of<T>(args.d_v), partial.as<float>(),  args.add_to_keys};
  if (args.q.tokens > 0) {
    row_products<T>(stream, sizes, rows_of<T>(args.o), grad.d_o, delta.as<float>());
  }
  if (args.q.tokens > 0 && !latent_query_gradient(stream, args, delta.as<float>())) {
    const std::size_t shared = static_cast<std::size_t>(kWarps * (sizes.width() + sizes.value_width)) * sizeof(float);
    allow_shared_memory(query_gradient_kernel<T>, shared, op);
    query_gradient_kernel<T><<<blocks_for(args.q.tokens * sizes.heads, kWarps), kWarps * kWarp, shared, native(stream)>>>(in, grad);
    check_launch(op);
  }
  if (args.k.tokens == 0 || latent_key_gradient(stream, args, delta.as<float>())) return;
  const BlockLists lists(stream, sizes, in.blocks);
  key_gradient_kernel<T><<<blocks_for(args.k.tokens * sizes.key_heads, kWarps), kWarps * kWarp, 0, native(stream)>>>(in, grad, lists.view());
  check_launch(op);
  if (sizes.shared_width > 0) sum_shared<T>(stream, sizes, partial.as<float>(), grad.d_k_shared, args.add_to_keys);
}

void forward(Stream& stream, const NsaSelectedForward& args) {
  check_sizes(args.kName, selected_sizes(args));
  if (heads_forward(stream, args) || union_forward(stream, args) || mma_forward(stream, args) || latent_forward(stream, args)) return;
  visit(args.q.dtype, [&]<class T>() { plain_forward<T>(stream, args); });
}

void backward(Stream& stream, const NsaSelectedBackward& args) {
  check_sizes(args.kName, selected_sizes(args));
  if (heads_backward(stream, args) || mma_backward(stream, args)) return;
  visit(args.q.dtype, [&]<class T>() { plain_backward<T>(stream, args); });
}

const RegisterCuda<NsaSelectedForward> registered_forward{forward};
const RegisterCuda<NsaSelectedBackward> registered_backward{backward};

}  // namespace

template <class T>
void row_products(Stream& stream, const SelectedSizes& sizes, HeadRows<const T> o, HeadRows<const T> d_o, float* delta) {
  const char* const op = "nsa: <d_o, o>";
  const std::int64_t rows = sizes.batch * sizes.tokens * sizes.heads;
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    if (sizes.value_width % 8 == 0 && in_pieces(o) && in_pieces(d_o)) {
      row_product16_kernel<<<blocks_for(rows, kWarps * kWarp / kRowLanes), kWarps * kWarp, 0, native(stream)>>>(sizes, o, d_o, delta);
      check_launch(op);
      return;
    }
  }
  row_product_kernel<T><<<blocks_for(rows, kWarps), kWarps * kWarp, 0, native(stream)>>>(sizes, o, d_o, delta);
  check_launch(op);
}

template <class T>
void sum_shared(Stream& stream, const SelectedSizes& sizes, const float* partial, HeadRows<T> d_k_shared, bool add) {
  constexpr int kThreads = 256;
  sum_shared_kernel<T>
      <<<blocks_for(sizes.batch * sizes.keys * sizes.shared_width, kThreads), kThreads, 0, native(stream)>>>(sizes, partial, d_k_shared, add);
  check_launch("nsa: d_k_shared");
}

template void row_products(Stream&, const SelectedSizes&, HeadRows<const float>, HeadRows<const float>, float*);
template void row_products(Stream&, const SelectedSizes&, HeadRows<const __nv_bfloat16>, HeadRows<const __nv_bfloat16>, float*);
template void sum_shared(Stream&, const SelectedSizes&, const float*, HeadRows<float>, bool);
template void sum_shared(Stream&, const SelectedSizes&, const float*, HeadRows<__nv_bfloat16>, bool);

}  // namespace hadal::kernels::cuda
