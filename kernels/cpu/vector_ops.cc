#include "kernels/cpu/simd/vector_ops.h"

#include "kernels/cpu/simd/tables.h"

HADAL_SIMD_PICK(VectorOps, vector_ops)
