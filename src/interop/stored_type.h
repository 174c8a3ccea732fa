// Element types of safetensors files (spec/interop.md 1): more than Hadal computes with. Reading one as a Hadal type is either
// the same type, or a conversion that the caller asks for by name.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "core/dtype.h"
#include "core/tensor.h"

namespace hadal::interop {

/// In the order in which a canonical writer lays tensors out.
enum class StoredType : std::uint8_t {
  kU64,
  kI64,
  kF64,
  kC64,
  kF32,
  kU32,
  kI32,
  kBf16,
  kF16,
  kU16,
  kI16,
  kF8E8M0,
  kF8E4M3,
  kF8E4M3Fnuz,
  kF8E5M2,
  kF8E5M2Fnuz,
  kI8,
  kU8,
  kBool,
};

/// "BF16"; nothing for a name that is unknown or has elements smaller than a byte.
std::optional<StoredType> stored_type_of(std::string_view name);
std::string_view name_of(StoredType type);
std::size_t size_of(StoredType type);
/// The same type in memory; nothing when Hadal has none.
std::optional<DType> dtype_of(StoredType type);
StoredType stored_type_of(DType dtype);

/// Converts `bytes` (elements of `type`, little-endian) to f32 or f64: F64, F32, BF16, F16, F8_E4M3 and F8_E5M2 only.
/// Exact but for F64 to f32, which rounds to nearest. False when there is no such conversion.
bool convert_to_float(StoredType type, std::span<const std::byte> bytes, View into);

/// IEEE half precision; exact.
float half_to_float(std::uint16_t bits);
/// e4m3 without infinities (fn): 0x7f and 0xff are NaN; exact.
float e4m3_to_float(std::uint8_t bits);
/// e5m2 with infinities; exact.
float e5m2_to_float(std::uint8_t bits);

}  // namespace hadal::interop
