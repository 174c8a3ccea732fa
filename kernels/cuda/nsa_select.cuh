// Importance of selection blocks: what the plain and the tensor-core kernel share (spec/model.md 8.2).
#pragma once

#include "core/stream.h"
#include "kernels/cuda/nsa_views.cuh"
#include "kernels/nsa.h"

namespace hadal::kernels::cuda {

struct ImportanceSizes {
  std::int64_t tokens, keys, query_start;  ///< of one sequence; keys are compressed blocks
  int heads, key_heads, groups;
  int key_width, shared_width;
  int block_length, block_stride, select_block;
  std::int64_t blocks;  ///< J
  float scale;

  __host__ __device__ int width() const { return key_width + shared_width; }
  __host__ __device__ int heads_per_key() const { return heads / key_heads; }
  __host__ __device__ int heads_per_group() const { return heads / groups; }
  /// Compressed keys that a position sees.
  __host__ __device__ std::int64_t visible(std::int64_t position) const {
    if (position + 1 < block_length) return 0;
    const std::int64_t count = (position + 1 - block_length) / block_stride + 1;
    return count < keys ? count : keys;
  }
  /// One past the last selection block that compressed block `key` touches.
  __device__ int blocks_end(int key) const { return (key * block_stride + block_length - 1) / select_block + 1; }
  /// The first compressed block that touches selection block j.
  __device__ int first_key(int j) const {
    const int past = j * select_block - block_length;  // where one would begin that ends just before
    return past < 0 ? 0 : past / block_stride + 1;
  }
  /// Tokens of compressed block `key` in selection block j.
  __device__ int overlap(int key, int j) const {
    const int a = key * block_stride, b = j * select_block;
    return min(a + block_length, b + select_block) - max(a, b);
  }
};

/// Queries [first, last) of sequences [begin, end); results of query t of sequence b go to row (b - begin) * (last - first) + t - first.
struct ImportanceRange {
  std::int64_t begin, end, first, last;
};

template <class T>
struct ImportanceInputs {
  ImportanceSizes sizes;
  HeadRows<const T> q, k, k_shared;
  const float* lse;  ///< [B*S, H]
  ImportanceRange range;
};

/// Adds the shares of keys [begin, end) of one query, whose head sums are p[key - begin], to importance [J], for the blocks of
/// thread `thread` of `threads`. Keys come in ascending runs; a run starts the blocks that no earlier key touches.
__device__ inline void add_shares(const ImportanceSizes& sizes, const float* p, int begin, int end, int thread, int threads, float* importance) {
  const int last = min(sizes.blocks_end(end - 1), static_cast<int>(sizes.blocks));
  const float inverse = 1.0f / static_cast<float>(sizes.block_stride);
  for (int j = begin * sizes.block_stride / sizes.select_block + thread; j < last; j += threads) {
    const int first = sizes.first_key(j);
    float sum = first < begin ? importance[j] : 0.0f;
    for (int i = max(begin, first); i < end && i * sizes.block_stride < (j + 1) * sizes.select_block; ++i) {
      sum += p[i - begin] * (static_cast<float>(sizes.overlap(i, j)) * inverse);
    }
    importance[j] = sum;
  }
}

/// True if they did the work: bf16 heads of a size and alignment that they know.
bool tiled_importance(Stream& stream, const char* op, const ImportanceInputs<__nv_bfloat16>& in, float* importance);
bool mma_importance(Stream& stream, const char* op, const ImportanceInputs<__nv_bfloat16>& in, float* importance);

}  // namespace hadal::kernels::cuda
