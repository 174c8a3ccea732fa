#include "kernels/cast.h"

#include "core/parallel_for.h"
#include "kernels/op.h"

namespace hadal::kernels {
namespace {

using std::int64_t;

// Elements of one task.
constexpr int64_t kRange = 1 << 14;

double read(double x) { return x; }
float read(float x) { return x; }
float read(Bf16 x) { return to_float(x); }

template <class To, class From>
To rounded(From x) {
  if constexpr (std::is_same_v<To, Bf16>) {
    return to_bf16(static_cast<float>(x));
  } else {
    return static_cast<To>(x);
  }
}

template <class From, class To>
void cast(const From* x, To* y, int64_t count, bool accumulate) {
  parallel_ranges(count, kRange, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) y[i] = rounded<To>(accumulate ? read(y[i]) + read(x[i]) : read(x[i]));
  });
}

template <class Body>
void visit_storage(DType dtype, Body&& body) {
  switch (dtype) {
    case DType::kF64: return body.template operator()<double>();
    case DType::kF32: return body.template operator()<float>();
    case DType::kBf16: return body.template operator()<Bf16>();
    default: throw ContractError(fmt::format("cast of {}, where f64, f32 and bf16 are known", name_of(dtype)));
  }
}

void cast_op(Stream&, const Cast& args) {
  visit_storage(args.x.dtype, [&]<class From>() {
    visit_storage(args.y.dtype, [&]<class To>() { cast(args.x.as<From>(), args.y.as<To>(), args.x.numel(), args.accumulate); });
  });
}

const RegisterCpu<Cast> registered{cast_op};

}  // namespace
}  // namespace hadal::kernels
