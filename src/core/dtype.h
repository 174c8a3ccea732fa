// Element types of tensors, their sizes and names, and the bfloat16 conversion.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace hadal {

enum class DType : std::uint8_t { kF64, kF32, kBf16, kF8E4M3, kI64, kI32, kU8 };

/// Bytes of one element.
std::size_t size_of(DType dtype);
/// "f64", "f32", "bf16", "f8e4m3", "i64", "i32", "u8".
std::string_view name_of(DType dtype);

/// In which dtype sums over values of `dtype` are held, and with them statistics, gradients of parameters and parameters that are
/// too small to be worth rounding (norm gains, biases, the router): f32 for bf16 and fp8, else the dtype itself.
constexpr DType accumulation_dtype(DType dtype) {
  return dtype == DType::kBf16 || dtype == DType::kF8E4M3 ? DType::kF32 : dtype;
}

/// bfloat16 storage; arithmetic happens in float.
struct Bf16 {
  std::uint16_t bits;
};

/// Exact.
inline float to_float(Bf16 value) { return std::bit_cast<float>(static_cast<std::uint32_t>(value.bits) << 16); }

/// Round to nearest even; NaN stays NaN.
inline Bf16 to_bf16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return Bf16{static_cast<std::uint16_t>((bits >> 16) | 0x40u)};
  return Bf16{static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

template <class T>
struct DTypeOf;
template <>
struct DTypeOf<double> {
  static constexpr DType value = DType::kF64;
};
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::kF32;
};
template <>
struct DTypeOf<Bf16> {
  static constexpr DType value = DType::kBf16;
};
template <>
struct DTypeOf<std::int64_t> {
  static constexpr DType value = DType::kI64;
};
template <>
struct DTypeOf<std::int32_t> {
  static constexpr DType value = DType::kI32;
};
template <>
struct DTypeOf<std::uint8_t> {
  static constexpr DType value = DType::kU8;
};

template <class T>
inline constexpr DType kDTypeOf = DTypeOf<T>::value;

}  // namespace hadal
