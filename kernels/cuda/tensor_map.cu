#include "kernels/cuda/tensor_map.h"

#include <cudaTypedefs.h>

#include "core/error.h"
#include "kernels/cuda/check.h"

namespace hadal::kernels::cuda {
namespace {

/// From the driver that is loaded, so that nothing links against it.
PFN_cuTensorMapEncodeTiled_v12000 encoder() {
  static const PFN_cuTensorMapEncodeTiled_v12000 function = [] {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult result{};
    check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &result), "cudaGetDriverEntryPointByVersion");
    HADAL_CHECK(found != nullptr, "this CUDA driver has no cuTensorMapEncodeTiled: 12.0 or later is needed");
    return reinterpret_cast<PFN_cuTensorMapEncodeTiled_v12000>(found);
  }();
  return function;
}

}  // namespace

CUtensorMap tensor_map(const void* data, std::int64_t depth, std::int64_t rows, std::int64_t width, int box_rows) {
  const cuuint32_t rank = depth == 0 ? 2 : 3;
  const cuuint64_t extents[] = {static_cast<cuuint64_t>(width), static_cast<cuuint64_t>(rows), static_cast<cuuint64_t>(depth)};
  const cuuint64_t strides[] = {extents[0] * 2, extents[0] * extents[1] * 2};
  const cuuint32_t box[] = {64, static_cast<cuuint32_t>(box_rows), 1}, steps[] = {1, 1, 1};
  CUtensorMap map{};
  const CUresult status = encoder()(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, rank, const_cast<void*>(data), extents, strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
                                    CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  HADAL_CHECK(status == CUDA_SUCCESS, "cuTensorMapEncodeTiled says {} for [{}, {}, {}]", static_cast<int>(status), depth, rows, width);
  return map;
}

}  // namespace hadal::kernels::cuda
