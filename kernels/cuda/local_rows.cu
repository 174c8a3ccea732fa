#include "kernels/local_rows.h"

#include "kernels/cuda/check.h"

namespace hadal::kernels::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads) local_rows_kernel(const int* ids, std::int64_t count, int begin, int end, int* rows) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) return;
  const int id = ids[i];
  rows[i] = id >= begin && id < end ? id - begin : -1;
}

void local_rows(Stream& stream, const LocalRows& args) {
  const std::int64_t count = args.ids.numel();
  if (count == 0) return;
  local_rows_kernel<<<static_cast<unsigned>((count + kThreads - 1) / kThreads), kThreads, 0, native(stream)>>>(
      args.ids.as<std::int32_t>(), count, static_cast<int>(args.begin), static_cast<int>(args.end), args.rows.as<std::int32_t>());
  check_launch(LocalRows::kName);
}

const RegisterCuda<LocalRows> registered{local_rows};

}  // namespace
}  // namespace hadal::kernels::cuda
