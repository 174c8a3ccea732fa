#include "core/convert.h"

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "core/error.h"
#include "core/parallel_for.h"

namespace hadal {
namespace {

constexpr std::int64_t kGrain = 1 << 16;

double load(Bf16 value) { return static_cast<double>(to_float(value)); }
double load(float value) { return static_cast<double>(value); }
double load(double value) { return value; }

template <class To>
To store(double value) {
  if constexpr (std::is_same_v<To, Bf16>) return to_bf16(static_cast<float>(value));
  if constexpr (!std::is_same_v<To, Bf16>) return static_cast<To>(value);
}

/// Calls body(T{}) with the C++ type of a float dtype.
template <class Body>
void visit(DType dtype, Body&& body) {
  switch (dtype) {
    case DType::kF64:
      return body(double{});
    case DType::kF32:
      return body(float{});
    case DType::kBf16:
      return body(Bf16{});
    default:
      throw UserError("{} tensors are not converted", name_of(dtype));
  }
}

}  // namespace

void convert_floats(ConstView from, View to) {
  HADAL_CHECK(from.shape == to.shape, "{} into {}", from.shape.str(), to.shape.str());
  if (from.dtype == to.dtype) {
    std::memcpy(to.data, from.data, from.bytes());
    return;
  }
  visit(from.dtype, [&]<class From>(From) {
    visit(to.dtype, [&]<class To>(To) {
      const From* source = from.as<From>();
      To* target = to.as<To>();
      parallel_ranges(from.numel(), kGrain, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) target[i] = store<To>(load(source[i]));
      });
    });
  });
}

}  // namespace hadal
