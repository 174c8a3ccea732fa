// Glue of kernels/cpu/simd: each .cc there is compiled once per instruction set, inside namespace simd::HADAL_SIMD.
#pragma once

namespace hadal::kernels::simd {

enum class Isa { kPortable, kAvx2, kAvx512 };

/// Best instruction set of this machine, at most what HADAL_ISA=portable|avx2|avx512 in the environment allows (read once).
Isa active_isa();
const char* name_of(Isa isa);

/// The entry compiled for the active instruction set.
template <class Table>
const Table& pick(const Table& portable, const Table& avx2, const Table& avx512) {
  switch (active_isa()) {
    case Isa::kAvx512:
      return avx512;
    case Isa::kAvx2:
      return avx2;
    case Isa::kPortable:
      break;
  }
  return portable;
}

}  // namespace hadal::kernels::simd
