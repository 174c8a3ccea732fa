#include <cstdlib>
#include <string_view>

#include "core/error.h"
#include "kernels/cpu/simd/simd.h"

namespace hadal::kernels::simd {
namespace {

Isa detect() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma")) {
    return Isa::kAvx512;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Isa::kAvx2;
#endif
  return Isa::kPortable;
}

Isa limited(Isa found) {
  const char* wanted = std::getenv("HADAL_ISA");
  if (wanted == nullptr) return found;
  const std::string_view name = wanted;
  Isa limit = Isa::kAvx512;
  if (name == "portable") {
    limit = Isa::kPortable;
  } else if (name == "avx2") {
    limit = Isa::kAvx2;
  } else if (name != "avx512") {
    throw UserError("HADAL_ISA={}: use portable, avx2 or avx512", name);
  }
  return limit < found ? limit : found;
}

}  // namespace

Isa active_isa() {
  static const Isa isa = limited(detect());
  return isa;
}

const char* name_of(Isa isa) {
  switch (isa) {
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kPortable:
      break;
  }
  return "portable";
}

}  // namespace hadal::kernels::simd
