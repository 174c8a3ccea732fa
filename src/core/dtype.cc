#include "core/dtype.h"

#include "core/error.h"

namespace hadal {

std::size_t size_of(DType dtype) {
  switch (dtype) {
    case DType::kF64:
    case DType::kI64:
      return 8;
    case DType::kF32:
    case DType::kI32:
      return 4;
    case DType::kBf16:
      return 2;
    case DType::kF8E4M3:
    case DType::kU8:
      return 1;
  }
  throw ContractError("size_of: not a dtype");
}

std::string_view name_of(DType dtype) {
  switch (dtype) {
    case DType::kF64:
      return "f64";
    case DType::kF32:
      return "f32";
    case DType::kBf16:
      return "bf16";
    case DType::kF8E4M3:
      return "f8e4m3";
    case DType::kI64:
      return "i64";
    case DType::kI32:
      return "i32";
    case DType::kU8:
      return "u8";
  }
  throw ContractError("name_of: not a dtype");
}

}  // namespace hadal
