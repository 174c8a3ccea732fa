#include "parallel/rounded_sum.h"

#include "kernels/cast.h"

namespace hadal::parallel {

void reduce_scatter_sum(Stream& stream, comm::Communicator& comm, ConstView all, View mine) {
  const Storage sums = Storage(all.dtype, all.device).accumulation();
  if (sums.dtype == all.dtype) return comm.reduce_scatter_sum(all, mine);
  Tensor wide = Tensor::empty(all.shape, sums), sum = Tensor::empty(mine.shape, sums);
  run(stream, kernels::Cast{.x = all, .y = wide});
  comm.reduce_scatter_sum(wide, sum);
  run(stream, kernels::Cast{.x = sum, .y = mine});
}

}  // namespace hadal::parallel
