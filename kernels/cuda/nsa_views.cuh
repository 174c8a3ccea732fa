// Heads as device code reads them, and what the NSA ops over selected blocks share.
#pragma once

#include <cstdint>
#include <numbers>

#include "kernels/cuda/device_math.cuh"
#include "kernels/cuda_scratch.h"
#include "kernels/heads.h"

namespace hadal::kernels::cuda {

inline constexpr float kLog2E = std::numbers::log2e_v<float>;
inline constexpr float kLn2 = std::numbers::ln2_v<float>;

/// [tokens, heads, width] rows, any strides.
template <class T>
struct HeadRows {
  T* data;
  std::int64_t token_stride, head_stride;

  __device__ T* at(std::int64_t token, std::int64_t head) const { return data + token * token_stride + head * head_stride; }
};

template <class T>
HeadRows<const T> rows_of(const ConstHeads& x) {
  return {static_cast<const T*>(x.data), x.token_stride, x.head_stride};
}
template <class T>
HeadRows<T> rows_of(const Heads& x) {
  return {static_cast<T*>(x.data), x.token_stride, x.head_stride};
}

/// Sizes of an op over selected blocks (kernels/nsa.h). `tokens` and `keys` are those of one sequence.
struct SelectedSizes {
  std::int64_t batch, tokens, keys, query_start;
  int heads, key_heads, groups;
  int chosen, select_block, num_blocks;  ///< num_blocks: that `keys` are cut into
  int key_width, shared_width, value_width;
  float scale;

  __host__ __device__ int width() const { return key_width + shared_width; }
  __host__ __device__ int heads_per_key() const { return heads / key_heads; }
  __host__ __device__ int heads_per_group() const { return heads / groups; }
};

/// What memory follows from.
inline SelectedShape shape_of(const SelectedSizes& sizes) {
  return {sizes.batch,  sizes.tokens,       sizes.keys,      sizes.heads,        sizes.key_heads,  sizes.groups,
          sizes.chosen, sizes.select_block, sizes.key_width, sizes.shared_width, sizes.value_width};
}

template <class Args>
SelectedSizes selected_sizes(const Args& args) {
  SelectedSizes sizes{};
  sizes.batch = args.batch;
  sizes.tokens = args.q.tokens / args.batch;
  sizes.keys = args.k.tokens / args.batch;
  sizes.query_start = args.query_start;
  sizes.heads = static_cast<int>(args.q.heads);
  sizes.key_heads = static_cast<int>(args.k.heads);
  sizes.groups = static_cast<int>(args.blocks.shape[1]);
  sizes.chosen = static_cast<int>(args.blocks.shape[2]);
  sizes.select_block = static_cast<int>(args.select_block);
  sizes.num_blocks = static_cast<int>((sizes.keys + args.select_block - 1) / args.select_block);
  sizes.key_width = static_cast<int>(args.k.width);
  sizes.shared_width = args.k_shared.defined() ? static_cast<int>(args.k_shared.width) : 0;
  sizes.value_width = static_cast<int>(args.v.width);
  sizes.scale = static_cast<float>(args.scale);
  return sizes;
}

/// q, k, k_shared, v and the selected blocks [B*S, Gs, n].
template <class T>
struct SelectedInputs {
  SelectedSizes sizes;
  HeadRows<const T> q, k, k_shared, v;
  const std::int32_t* blocks;
};

template <class T, class Args>
SelectedInputs<T> selected_inputs(const Args& args) {
  return {selected_sizes(args),
          rows_of<T>(args.q),
          rows_of<T>(args.k),
          rows_of<T>(args.k_shared),
          rows_of<T>(ConstHeads(args.v)),
          args.blocks.template as<std::int32_t>()};
}

}  // namespace hadal::kernels::cuda
