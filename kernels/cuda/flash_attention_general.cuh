// What the general attention kernels share beside their tiles: rows of (token, head of the group), keys with the shared part, sizes of
// launches.
#pragma once

#include "kernels/cuda/attention_params.h"
#include "kernels/cuda/attention_statistics.h"
#include "kernels/cuda/attention_tiles.cuh"

namespace hadal::kernels::cuda::general {

/// Element i of [k | k_shared] of one key.
template <class T>
struct Keys {
  Strided<const T> own, shared;
  int own_width;

  __device__ float operator()(std::int64_t token, int head, int i) const {
    return to_float(i < own_width ? own.at(token, head)[i] : shared.at(token, 0)[i - own_width]);
  }
};

/// The rows of one (sequence, key head): row r is token r / group, head kv * group + r % group.
struct Rows {
  const AttentionSizes& sizes;
  int sequence, kv;

  __device__ Rows(const AttentionSizes& all) : sizes(all), sequence(blockIdx.y / all.key_heads), kv(blockIdx.y % all.key_heads) {}
  __device__ int count() const { return sizes.tokens * sizes.group; }
  __device__ int token(int row) const { return row / sizes.group; }
  __device__ std::int64_t global_token(int row) const { return std::int64_t{sequence} * sizes.tokens + token(row); }
  __device__ int head(int row) const { return kv * sizes.group + row % sizes.group; }
  __device__ std::int64_t key(int j) const { return std::int64_t{sequence} * sizes.keys + j; }
  __device__ bool sees(int row, int j) const {
    return row < count() && j >= sizes.begin_of(token(row)) && j < sizes.end_of(token(row));
  }
  /// Where the statistics of a row lie.
  __device__ std::int64_t statistics(int row) const { return statistics_at(sizes, sequence, head(row), token(row)); }
};

/// Calls body.template operator()<NK, NV>() with enough columns per thread for both widths.
template <class Body>
void visit_widths(const char* op, const AttentionSizes& sizes, Body&& body) {
  if (sizes.width <= kThreads && sizes.value_width <= kThreads) {
    body.template operator()<1, 1>();
  } else if (sizes.width <= 2 * kThreads && sizes.value_width <= 2 * kThreads) {
    body.template operator()<2, 2>();
  } else {
    HADAL_CHECK(sizes.width <= 5 * kThreads && sizes.value_width <= 4 * kThreads, "{}: head dims {} and {}, at most 640 and 512 on CUDA", op,
                sizes.width, sizes.value_width);
    body.template operator()<5, 4>();
  }
}

inline std::size_t shared_bytes(int row_floats, int weights) {
  return sizeof(float) * static_cast<std::size_t>(kRows * row_floats + weights * kWeightFloats + kChunkFloats);
}
inline dim3 grid_of(const AttentionSizes& sizes, int rows) {
  return {static_cast<unsigned>((rows + kRows - 1) / kRows), static_cast<unsigned>(sizes.batch * sizes.key_heads)};
}
template <class T, class Args>
Keys<T> keys_of(const Args& args) {
  return {strided<T>(args.k), strided<T>(args.k_shared), static_cast<int>(args.k.width)};
}

}  // namespace hadal::kernels::cuda::general
