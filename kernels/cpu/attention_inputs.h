// What the CPU attention ops share: sizes and pointers of q, k, k_shared, v, which keys a row sees, and scratch memory.
//
// The heads of one key head's group see the same keys, so the rows of a task are (token, head of the group) pairs, token-major:
// row r of key head `kv` is token r / group, head kv * group + r % group.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numbers>

#include "core/tensor.h"
#include "kernels/cpu/simd/attention_tiles.h"
#include "kernels/flash_attention.h"

namespace hadal::kernels::cpu {

using std::int64_t;

inline int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

/// One block of the allocator, handed out in 64-byte aligned slices.
template <class T>
class Scratch {
 public:
  static int64_t padded(int64_t elements) { return round_up(elements, 64 / static_cast<int64_t>(sizeof(T))); }

  /// Room for slices whose `padded` sizes sum to `elements`.
  explicit Scratch(int64_t elements) : tensor_(Tensor::empty({elements}, kDTypeOf<T>)) {}

  T* take(int64_t elements) {
    T* slice = tensor_.template as<T>() + used_;
    used_ += padded(elements);
    HADAL_CHECK(used_ <= tensor_.numel(), "scratch of {} elements, {} asked for", tensor_.numel(), used_);
    return slice;
  }
  T* take_zeros(int64_t elements) {
    T* slice = take(elements);
    std::fill(slice, slice + elements, T{0});
    return slice;
  }

 private:
  Tensor tensor_;
  int64_t used_ = 0;
};

/// Keys [begin, end).
struct KeyRange {
  int64_t begin = 0;
  int64_t end = 0;
};

/// The keys that a position sees: a range whose ends never go back as the position grows.
class Visibility {
 public:
  Visibility(const AttentionMask& mask, int64_t num_keys) : mask_(mask), num_keys_(num_keys) {}

  KeyRange at(int64_t position) const {
    if (mask_.kind == AttentionMask::Kind::kBlocks) {
      const int64_t past = position - mask_.block_length + 1;
      return {0, past < 0 ? 0 : std::min(num_keys_, past / mask_.block_stride + 1)};
    }
    const int64_t begin = mask_.window > 0 ? std::max<int64_t>(0, position - mask_.window + 1) : 0;
    return {std::min(begin, num_keys_), std::min(num_keys_, position + 1)};
  }

 private:
  AttentionMask mask_;
  int64_t num_keys_;
};

/// The same element type for every pointer; strides in elements.
template <class T>
struct AttentionInputs {
  template <class Args>
  explicit AttentionInputs(const Args& args)
      : tiles(simd::attention_tiles<T>()),
        batch(args.batch),
        tokens(args.q.tokens / args.batch),
        keys(args.k.tokens / args.batch),
        heads(args.q.heads),
        key_heads(args.k.heads),
        group(args.q.heads / args.k.heads),
        key_width(args.k.width),
        shared_width(args.k_shared.defined() ? args.k_shared.width : 0),
        width(key_width + shared_width),
        value_width(args.v.width),
        width_padded(round_up(width, tiles.lanes)),
        value_padded(round_up(value_width, tiles.lanes)),
        keys_padded(round_up(keys, tiles.lanes)),
        scale(static_cast<T>(args.scale)),
        q(args.q),
        k(args.k),
        k_shared(args.k_shared),
        v(args.v) {}

  static const T* at(const ConstHeads& x, int64_t token, int64_t head) {
    return x.as<T>() + token * x.token_stride + head * x.head_stride;
  }
  static T* at(const Heads& x, int64_t token, int64_t head) { return x.as<T>() + token * x.token_stride + head * x.head_stride; }

  /// Rows of tokens [first, last) of sequence b, key head kv, times `factor`: [(last - first) * group, ld].
  void pack_rows(const ConstHeads& x, int64_t b, int64_t kv, int64_t first, int64_t last, T factor, T* to, int64_t ld) const {
    for (int64_t g = 0; g < group; ++g) {
      tiles.pack_rows(last - first, x.width, at(x, b * tokens + first, kv * group + g), x.token_stride, factor, to + g * ld,
                      group * ld, ld);
    }
  }
  /// The way back: y[(first..last), head] = factor * rows.
  void unpack_rows(const T* rows, int64_t ld, int64_t b, int64_t kv, int64_t first, int64_t last, T factor,
                   const Heads& y) const {
    for (int64_t g = 0; g < group; ++g) {
      tiles.pack_rows(last - first, y.width, rows + g * ld, group * ld, factor, at(y, b * tokens + first, kv * group + g),
                      y.token_stride, y.width);
    }
  }

  /// Keys of `range` with the shared part behind, transposed into columns of [width, ld].
  void pack_keys_transposed(int64_t b, int64_t kv, KeyRange range, T* to, int64_t ld) const {
    const int64_t count = range.end - range.begin, first = b * keys + range.begin;
    tiles.pack_columns(count, key_width, at(k, first, kv), k.token_stride, to, ld);
    if (shared_width > 0) {
      tiles.pack_columns(count, shared_width, at(k_shared, first, 0), k_shared.token_stride, to + key_width * ld, ld);
    }
  }
  /// Keys [begin, end) as rows of [end - begin, width_padded].
  void pack_keys(int64_t b, int64_t kv, KeyRange range, T* to) const {
    const int64_t count = range.end - range.begin, first = b * keys + range.begin;
    tiles.pack_rows(count, key_width, at(k, first, kv), k.token_stride, T{1}, to, width_padded,
                    shared_width > 0 ? key_width : width_padded);
    if (shared_width > 0) {
      tiles.pack_rows(count, shared_width, at(k_shared, first, 0), k_shared.token_stride, T{1}, to + key_width, width_padded,
                      width_padded - key_width);
    }
  }
  void pack_values(int64_t b, int64_t kv, KeyRange range, T* to) const {
    tiles.pack_rows(range.end - range.begin, value_width, at(v, b * keys + range.begin, kv), v.token_stride, T{1}, to,
                    value_padded, value_padded);
  }
  void pack_values_transposed(int64_t b, int64_t kv, KeyRange range, T* to, int64_t ld) const {
    tiles.pack_columns(range.end - range.begin, value_width, at(v, b * keys + range.begin, kv), v.token_stride, to, ld);
  }

  const simd::AttentionTiles<T>& tiles;
  int64_t batch, tokens, keys, heads, key_heads, group;
  int64_t key_width, shared_width, width, value_width;
  int64_t width_padded, value_padded, keys_padded;
  T scale;
  ConstHeads q, k, k_shared, v;
};

template <class T>
inline constexpr T kMasked = -std::numeric_limits<T>::infinity();
/// Base-2 scores: q is packed times scale * log2 e.
template <class T>
inline constexpr T kLog2E = std::numbers::log2e_v<T>;
template <class T>
inline constexpr T kLn2 = std::numbers::ln2_v<T>;

using simd::kStripRows;
inline constexpr int64_t kBlockRows = 64;  ///< rows of a query block; a token's heads stay together
inline constexpr int64_t kKeyTile = 128;   ///< keys of a tile

/// After the last key of the rows of tokens [t0, t1): o = output / row_sum, lse = ln(row_sum 2^row_max); nothing seen: 0 and
/// -inf. `lse` is the whole [B*S, H].
template <class T>
void finish_rows(const AttentionInputs<T>& in, int64_t b, int64_t kv, int64_t t0, int64_t t1, const T* row_max, const T* row_sum,
                 T* output, T* lse, const Heads& o) {
  T* const to = lse + (b * in.tokens + t0) * in.heads + kv * in.group;
  for (int64_t row = 0; row < (t1 - t0) * in.group; ++row) {
    const bool none = row_sum[row] == T{0};  // not by the maximum, which a NaN may have left at -inf
    to[row / in.group * in.heads + row % in.group] = none ? kMasked<T> : row_max[row] * kLn2<T> + std::log(row_sum[row]);
    const T inverse = none ? T{0} : T{1} / row_sum[row];
    for (int64_t c = 0; c < in.value_padded; ++c) output[row * in.value_padded + c] *= inverse;
  }
  in.unpack_rows(output, in.value_padded, b, kv, t0, t1, T{1}, o);
}

/// Pieces into which the queries of one (sequence, key head) are cut so that few heads still feed many cores. Depends on sizes
/// alone; a piece has at least 256 rows, since each packs the keys again.
inline int64_t query_parts(int64_t batch, int64_t key_heads, int64_t rows) {
  constexpr int64_t kTasks = 32, kMinRows = 256;
  const int64_t wanted = (kTasks + batch * key_heads - 1) / (batch * key_heads);
  return std::clamp<int64_t>(wanted, 1, std::max<int64_t>(1, rows / kMinRows));
}

/// The same for a backward pass, where every piece has its own sums of d_k and d_v: 256 MiB of them at most.
template <class T>
int64_t gradient_parts(const AttentionInputs<T>& in) {
  constexpr int64_t kBytes = int64_t{256} << 20;
  const int64_t sums = in.batch * in.key_heads * in.keys * (in.width_padded + in.value_padded) * static_cast<int64_t>(sizeof(T));
  const int64_t parts = query_parts(in.batch, in.key_heads, in.tokens * in.group);
  return std::clamp<int64_t>(kBytes / std::max<int64_t>(sums, 1), 1, parts);
}

}  // namespace hadal::kernels::cpu
