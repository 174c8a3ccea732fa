// Descriptions of tensors for Hopper's copy engine: boxes of bf16, 64 elements wide, that land in shared memory in the 128-byte swizzle.
#pragma once

#include <cuda.h>

#include <cstdint>

namespace hadal::kernels::cuda {

/// Whether the copy engine can read rows of `width` bf16 from there on: 16-byte starts.
inline bool fits_tensor_map(const void* data, std::int64_t width) { return reinterpret_cast<std::uintptr_t>(data) % 16 == 0 && width % 8 == 0; }

/// A row-major [rows, width] of bf16, or [depth, rows, width] where depth is not 0, cut into boxes of 64 columns by `box_rows` (at most 256).
CUtensorMap tensor_map(const void* data, std::int64_t depth, std::int64_t rows, std::int64_t width, int box_rows);

}  // namespace hadal::kernels::cuda
