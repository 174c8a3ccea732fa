#include "interop/stored_type.h"

#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/error.h"

namespace hadal::interop {
namespace {

struct Row {
  std::string_view name;
  std::size_t bytes;
  std::optional<DType> dtype;
};

constexpr std::array<Row, 19> kRows{{
    {"U64", 8, {}},
    {"I64", 8, DType::kI64},
    {"F64", 8, DType::kF64},
    {"C64", 8, {}},
    {"F32", 4, DType::kF32},
    {"U32", 4, {}},
    {"I32", 4, DType::kI32},
    {"BF16", 2, DType::kBf16},
    {"F16", 2, {}},
    {"U16", 2, {}},
    {"I16", 2, {}},
    {"F8_E8M0", 1, {}},
    {"F8_E4M3", 1, DType::kF8E4M3},
    {"F8_E4M3FNUZ", 1, {}},
    {"F8_E5M2", 1, {}},
    {"F8_E5M2FNUZ", 1, {}},
    {"I8", 1, {}},
    {"U8", 1, DType::kU8},
    {"BOOL", 1, {}},
}};

const Row& row(StoredType type) { return kRows[static_cast<std::size_t>(type)]; }

/// Small float formats with `exponent_bits`, `mantissa_bits` and an IEEE bias; the value of a pattern that is no NaN or infinity.
float small_float(unsigned bits, int exponent_bits, int mantissa_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const int exponent = static_cast<int>(bits >> mantissa_bits) & ((1 << exponent_bits) - 1);
  const int mantissa = static_cast<int>(bits) & ((1 << mantissa_bits) - 1);
  const bool negative = ((bits >> (exponent_bits + mantissa_bits)) & 1u) != 0;
  const float magnitude = exponent == 0
                              ? std::ldexp(static_cast<float>(mantissa), 1 - bias - mantissa_bits)
                              : std::ldexp(static_cast<float>(mantissa + (1 << mantissa_bits)), exponent - bias - mantissa_bits);
  return negative ? -magnitude : magnitude;
}

template <class Bits, class To, class Convert>
void convert(std::span<const std::byte> bytes, To* to, Convert&& one) {
  for (std::size_t i = 0; i < bytes.size() / sizeof(Bits); ++i) {
    Bits bits;
    std::memcpy(&bits, bytes.data() + i * sizeof(Bits), sizeof(Bits));
    to[i] = static_cast<To>(one(bits));
  }
}

template <class To>
bool convert_all(StoredType type, std::span<const std::byte> bytes, To* to) {
  switch (type) {
    case StoredType::kF64:
      convert<double>(bytes, to, [](double value) { return value; });
      return true;
    case StoredType::kF32:
      convert<float>(bytes, to, [](float value) { return value; });
      return true;
    case StoredType::kBf16:
      convert<std::uint16_t>(bytes, to, [](std::uint16_t bits) { return to_float(Bf16{bits}); });
      return true;
    case StoredType::kF16:
      convert<std::uint16_t>(bytes, to, half_to_float);
      return true;
    case StoredType::kF8E4M3:
      convert<std::uint8_t>(bytes, to, e4m3_to_float);
      return true;
    case StoredType::kF8E5M2:
      convert<std::uint8_t>(bytes, to, e5m2_to_float);
      return true;
    default:
      return false;
  }
}

}  // namespace

std::optional<StoredType> stored_type_of(std::string_view name) {
  for (std::size_t i = 0; i < kRows.size(); ++i) {
    if (kRows[i].name == name) return static_cast<StoredType>(i);
  }
  return std::nullopt;
}

std::string_view name_of(StoredType type) { return row(type).name; }

std::size_t size_of(StoredType type) { return row(type).bytes; }

std::optional<DType> dtype_of(StoredType type) { return row(type).dtype; }

StoredType stored_type_of(DType dtype) {
  for (std::size_t i = 0; i < kRows.size(); ++i) {
    if (kRows[i].dtype == dtype) return static_cast<StoredType>(i);
  }
  throw ContractError("no stored type for this dtype");
}

float half_to_float(std::uint16_t bits) {
  if ((bits & 0x7c00u) != 0x7c00u) return small_float(bits, 5, 10);
  const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000u) << 16;
  return std::bit_cast<float>(sign | 0x7f800000u | (static_cast<std::uint32_t>(bits & 0x3ffu) << 13));
}

float e4m3_to_float(std::uint8_t bits) {
  if ((bits & 0x7fu) == 0x7fu) return std::numeric_limits<float>::quiet_NaN();
  return small_float(bits, 4, 3);
}

float e5m2_to_float(std::uint8_t bits) { return half_to_float(static_cast<std::uint16_t>(bits << 8)); }

bool convert_to_float(StoredType type, std::span<const std::byte> bytes, View into) {
  HADAL_CHECK(static_cast<std::size_t>(into.numel()) * size_of(type) == bytes.size(), "{} bytes of {} for {} elements",
              bytes.size(), name_of(type), into.numel());
  if (into.dtype == DType::kF32) return convert_all(type, bytes, into.as<float>());
  if (into.dtype == DType::kF64) return convert_all(type, bytes, into.as<double>());
  return false;
}

}  // namespace hadal::interop
