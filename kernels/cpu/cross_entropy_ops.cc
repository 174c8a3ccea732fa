// The table of cross-entropy row loops for the active instruction set.
#include "kernels/cpu/simd/cross_entropy.h"
#include "kernels/cpu/simd/tables.h"

HADAL_SIMD_PICK(CrossEntropyOps, cross_entropy_ops)
