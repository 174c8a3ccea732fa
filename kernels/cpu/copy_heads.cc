#include "kernels/copy_heads.h"

#include <cstring>

#include "core/parallel_for.h"
#include "kernels/cpu/simd/vector_ops.h"
#include "kernels/dispatch.h"

namespace hadal::kernels {
namespace {

constexpr std::int64_t kTokenGrain = 64;

bool packed(const ConstHeads& x) { return (x.heads == 1 || x.head_stride == x.width) && x.token_stride == x.heads * x.width; }

void copy_bytes(const ConstHeads& x, const Heads& y) {
  const std::size_t size = size_of(x.dtype);
  const auto* const from = static_cast<const char*>(x.data);
  auto* const to = static_cast<char*>(y.data);
  const bool whole = packed(x) && packed(y);
  parallel_ranges(x.tokens, kTokenGrain, [&](std::int64_t begin, std::int64_t end) {
    const auto at = [size](const ConstHeads& matrix, std::int64_t t, std::int64_t h) {
      return static_cast<std::size_t>(t * matrix.token_stride + h * matrix.head_stride) * size;
    };
    if (whole) {
      std::memcpy(to + at(y, begin, 0), from + at(x, begin, 0), static_cast<std::size_t>((end - begin) * x.heads * x.width) * size);
      return;
    }
    for (std::int64_t t = begin; t < end; ++t) {
      for (std::int64_t h = 0; h < x.heads; ++h) std::memcpy(to + at(y, t, h), from + at(x, t, h), static_cast<std::size_t>(x.width) * size);
    }
  });
}

void copy_heads(Stream&, const CopyHeads& args) {
  if (!args.accumulate) {
    copy_bytes(args.x, args.y);
    return;
  }
  visit_float(args.y.dtype, [&]<class T>() {
    const ConstHeads& x = args.x;
    const Heads& y = args.y;
    const auto& ops = simd::vector_ops<T>();
    parallel_ranges(x.tokens, kTokenGrain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t t = begin; t < end; ++t) {
        for (std::int64_t h = 0; h < x.heads; ++h) {
          ops.add(x.width, x.as<T>() + t * x.token_stride + h * x.head_stride, y.as<T>() + t * y.token_stride + h * y.head_stride);
        }
      }
    });
  });
}

const RegisterCpu<CopyHeads> registered{copy_heads};

}  // namespace
}  // namespace hadal::kernels
