#include "kernels/rope.h"

#include "core/parallel_for.h"
#include "kernels/cpu/simd/rope.h"
#include "kernels/cpu/simd/tables.h"
#include "kernels/dispatch.h"

HADAL_SIMD_PICK(RopeRows, rope_rows)

namespace hadal::kernels {
namespace {

constexpr std::int64_t kGrainElements = 1 << 14;

void rope(Stream&, const Rope& args) {
  visit_float(args.x.dtype, [&]<class T>() {
    const ConstHeads& x = args.x;
    const Heads& y = args.y;
    const T* from = x.as<T>();
    T* to = y.as<T>();
    const T* cosines = args.cosines.as<T>();
    const T* sines = args.sines.as<T>();
    const T sign = args.transpose ? T{-1} : T{1};
    const std::int64_t pairs = x.width / 2, seq = x.tokens / args.batch;
    const bool in_place = x.data == y.data;
    const auto& rows = simd::rope_rows<T>();
    const std::int64_t grain = kGrainElements / (x.heads * x.width) + 1;
    parallel_ranges(x.tokens, grain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t t = begin; t < end; ++t) {
        const std::int64_t at = (args.position_start + t % seq * args.position_stride) * pairs;
        T* out = to + t * y.token_stride;
        if (in_place) {
          rows.in_place(x.heads, pairs, sign, cosines + at, sines + at, out, y.head_stride);
        } else {
          (args.accumulate ? rows.add_to : rows.to)(x.heads, pairs, sign, cosines + at, sines + at, from + t * x.token_stride,
                                                    x.head_stride, out, y.head_stride);
        }
      }
    });
  });
}

const RegisterCpu<Rope> registered{rope};

}  // namespace
}  // namespace hadal::kernels
