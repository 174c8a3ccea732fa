// A contiguous [T, heads * width] buffer as heads.
#pragma once

#include "kernels/heads.h"

namespace hadal::nn {

inline kernels::Heads split_heads(View x, std::int64_t heads) {
  return kernels::heads_of(x, heads, x.shape[1] / heads, 0, x.shape[1] / heads);
}

inline kernels::ConstHeads split_heads(ConstView x, std::int64_t heads) {
  return kernels::heads_of(x, heads, x.shape[1] / heads, 0, x.shape[1] / heads);
}

}  // namespace hadal::nn
