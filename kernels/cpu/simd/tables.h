// Declares a pair of table getters (f32, f64) in each instruction set's namespace and defines the run-time choice.
//   HADAL_SIMD_TABLE(VectorOps, vector_ops)
// declares simd::{portable,avx2,avx512}::vector_ops_f32/_f64. A kernels/cpu/<op>.cc that wants the table calls
//   HADAL_SIMD_PICK(VectorOps, vector_ops)
// once, which defines simd::vector_ops<float> and <double>.
#pragma once

#include "kernels/cpu/simd/simd.h"

#define HADAL_SIMD_DECLARE(isa, Table, getter) \
  namespace isa {                              \
  const Table<float>& getter##_f32();          \
  const Table<double>& getter##_f64();         \
  }

#define HADAL_SIMD_TABLE(Table, getter)           \
  namespace hadal::kernels::simd {                \
  HADAL_SIMD_DECLARE(portable, Table, getter)     \
  HADAL_SIMD_DECLARE(avx2, Table, getter)         \
  HADAL_SIMD_DECLARE(avx512, Table, getter)       \
  }

#ifdef HADAL_PORTABLE_ONLY
#define HADAL_SIMD_CHOICE(getter) portable::getter()
#else
#define HADAL_SIMD_CHOICE(getter) pick(portable::getter(), avx2::getter(), avx512::getter())
#endif

#define HADAL_SIMD_PICK(Table, getter)                         \
  HADAL_SIMD_TABLE(Table, getter)                              \
  namespace hadal::kernels::simd {                             \
  template <>                                                  \
  const Table<float>& getter<float>() {                        \
    return HADAL_SIMD_CHOICE(getter##_f32);                    \
  }                                                            \
  template <>                                                  \
  const Table<double>& getter<double>() {                      \
    return HADAL_SIMD_CHOICE(getter##_f64);                    \
  }                                                            \
  }
