// A [tokens, heads, width] matrix inside a larger buffer: slices of packed projections need no copy.
// Element (t, h, i) is data[t * token_stride + h * head_stride + i]; the last dim is contiguous.
#pragma once

#include "core/tensor.h"

namespace hadal::kernels {

template <class Pointer>
struct HeadsOf {
  Pointer data = nullptr;
  DType dtype = DType::kF32;
  std::int64_t tokens = 0;
  std::int64_t heads = 0;
  std::int64_t width = 0;
  std::int64_t token_stride = 0;
  std::int64_t head_stride = 0;

  bool defined() const { return data != nullptr; }
  template <class T>
  auto as() const {
    HADAL_CHECK(dtype == kDTypeOf<T>, "heads of {} used as {}", name_of(dtype), name_of(kDTypeOf<T>));
    if constexpr (std::is_const_v<std::remove_pointer_t<Pointer>>) {
      return static_cast<const T*>(data);
    } else {
      return static_cast<T*>(data);
    }
  }
};

using ConstHeads = HeadsOf<const void*>;

struct Heads : HeadsOf<void*> {
  operator ConstHeads() const { return {data, dtype, tokens, heads, width, token_stride, head_stride}; }
};

/// Columns [offset, offset + width) of each head of a contiguous [tokens, heads, total] buffer.
inline ConstHeads heads_of(ConstView x, std::int64_t heads, std::int64_t total, std::int64_t offset, std::int64_t width) {
  HADAL_CHECK(heads * total > 0 && x.numel() % (heads * total) == 0 && offset + width <= total,
              "heads {} of {} columns [{}, {}) in {}", heads, total, offset, offset + width, x.shape.str());
  return {static_cast<const char*>(x.data) + static_cast<std::size_t>(offset) * size_of(x.dtype),
          x.dtype,
          x.numel() / (heads * total),
          heads,
          width,
          heads * total,
          total};
}

inline Heads heads_of(View x, std::int64_t heads, std::int64_t total, std::int64_t offset, std::int64_t width) {
  const ConstHeads c = heads_of(static_cast<ConstView>(x), heads, total, offset, width);
  Heads result;
  result.data = const_cast<void*>(c.data);
  result.dtype = c.dtype;
  result.tokens = c.tokens;
  result.heads = c.heads;
  result.width = c.width;
  result.token_stride = c.token_stride;
  result.head_stride = c.head_stride;
  return result;
}

}  // namespace hadal::kernels
