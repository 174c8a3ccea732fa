#include "kernels/copy_heads.h"

namespace hadal::kernels {
namespace {

/// Byte offset of a row that is inside, or one past the end.
std::size_t offset_of(const ConstHeads& x, std::int64_t begin, std::int64_t count) {
  HADAL_CHECK(begin >= 0 && count >= 0 && begin + count <= x.tokens, "rows [{}, {}) of {}", begin, begin + count, x.tokens);
  return static_cast<std::size_t>(begin * x.token_stride) * size_of(x.dtype);
}

}  // namespace

void run(Stream& stream, const CopyHeads& args) {
  const ConstHeads y = args.y;
  HADAL_CHECK(args.x.tokens == y.tokens && args.x.heads == y.heads && args.x.width == y.width && args.x.dtype == y.dtype,
              "from {} [{}, {}, {}] to {} [{}, {}, {}]", name_of(args.x.dtype), args.x.tokens, args.x.heads, args.x.width, name_of(y.dtype),
              y.tokens, y.heads, y.width);
  if (y.tokens * y.heads * y.width > 0) launch(stream, args);
}

ConstHeads token_rows(ConstHeads x, std::int64_t begin, std::int64_t count) {
  x.data = static_cast<const char*>(x.data) + offset_of(x, begin, count);
  x.tokens = count;
  return x;
}

Heads token_rows(Heads x, std::int64_t begin, std::int64_t count) {
  x.data = static_cast<char*>(x.data) + offset_of(x, begin, count);
  x.tokens = count;
  return x;
}

}  // namespace hadal::kernels
