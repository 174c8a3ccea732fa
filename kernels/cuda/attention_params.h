// What attention kernels are told: sizes, strided heads, and which keys a query sees (spec/model.md 8.1, 8.3). Host and device.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "kernels/flash_attention.h"

namespace hadal::kernels::cuda {

/// HeadsOf as device code reads it: element (t, h, i) is at(t, h)[i].
template <class T>
struct Strided {
  T* data = nullptr;
  std::int64_t token_stride = 0;
  std::int64_t head_stride = 0;

  __host__ __device__ T* at(std::int64_t token, std::int64_t head) const { return data + token * token_stride + head * head_stride; }
};

template <class T>
Strided<const T> strided(const ConstHeads& x) {
  return {static_cast<const T*>(x.data), x.token_stride, x.head_stride};
}
template <class T>
Strided<T> strided(const Heads& x) {
  return {static_cast<T*>(x.data), x.token_stride, x.head_stride};
}

/// Tokens and keys are counted within one sequence; visibility is monotone in both.
struct AttentionSizes {
  int batch, tokens, keys;
  int heads, key_heads, group;
  int key_width, shared_width, width, value_width;  ///< width = key_width + shared_width
  bool blocks;                                      ///< AttentionMask::Kind::kBlocks
  int window, block_length, block_stride;
  int query_start;
  float scale;

  template <class Args>
  explicit AttentionSizes(const Args& args)
      : batch(narrow(args.batch)),
        tokens(narrow(args.q.tokens / args.batch)),
        keys(narrow(args.k.tokens / args.batch)),
        heads(narrow(args.q.heads)),
        key_heads(narrow(args.k.heads)),
        group(heads / key_heads),
        key_width(narrow(args.k.width)),
        shared_width(args.k_shared.defined() ? narrow(args.k_shared.width) : 0),
        width(key_width + shared_width),
        value_width(narrow(args.v.width)),
        blocks(args.mask.kind == AttentionMask::Kind::kBlocks),
        window(static_cast<int>(std::min<std::int64_t>(args.mask.window, kMost))),
        block_length(blocks ? narrow(args.mask.block_length) : 1),
        block_stride(blocks ? narrow(args.mask.block_stride) : 1),
        query_start(narrow(args.query_start)),
        scale(static_cast<float>(args.scale)) {}

  /// Query `token` sees keys [begin_of(token), end_of(token)).
  __host__ __device__ int begin_of(int token) const {
    if (blocks || window == 0) return 0;
    const int begin = query_start + token - window + 1;
    return begin < 0 ? 0 : least(begin, keys);
  }
  __host__ __device__ int end_of(int token) const {
    const int position = query_start + token;
    if (!blocks) return least(position + 1, keys);
    const int past = position - block_length + 1;
    return past < 0 ? 0 : least(past / block_stride + 1, keys);
  }
  /// Key `key` is seen by queries [first_query(key), last_query(key)); empty where the first is not below the last.
  __host__ __device__ int first_query(int key) const {
    const std::int64_t position = blocks ? std::int64_t{key} * block_stride + block_length - 1 : key;
    const std::int64_t token = position - query_start;
    return token < 0 ? 0 : token < tokens ? static_cast<int>(token) : tokens;
  }
  __host__ __device__ int last_query(int key) const {
    if (blocks || window == 0) return tokens;
    const std::int64_t token = std::int64_t{key} + window - query_start;
    return token < 0 ? 0 : token < tokens ? static_cast<int>(token) : tokens;
  }

 private:
  static constexpr std::int64_t kMost = std::int64_t{1} << 29;

  static int narrow(std::int64_t size) {
    HADAL_CHECK(size <= kMost, "attention over {} of something, at most {} on CUDA", size, kMost);
    return static_cast<int>(size);
  }
  __host__ __device__ static int least(int a, int b) { return a < b ? a : b; }
};

inline constexpr float kLog2E = 1.4426950408889634f;
inline constexpr float kLn2 = 0.6931471805599453f;

}  // namespace hadal::kernels::cuda
