// Rotary position embedding on packed heads (spec/model.md 4): lanes (2i, 2i+1) of a head form one complex number, turned by the
// angle of pair i at the row's position p = position_start + position_stride * (row within its sequence).
//   y_2i = c x_2i - s x_2i+1;  y_2i+1 = s x_2i + c x_2i+1,   c = cosines[p, i], s = sines[p, i]
// `transpose` turns the other way: the backward pass, and the inverse where c^2 + s^2 = 1.
// batch * S rows, sequence by sequence; every head of a row turns alike. y may be x itself.
// x and y share one dtype; the tables have its accumulation_dtype (f32 for bf16), in which the products are made.
#pragma once

#include "kernels/heads.h"
#include "kernels/op.h"

namespace hadal::kernels {

struct Rope {
  static constexpr const char* kName = "rope";
  std::int64_t batch = 1;
  ConstHeads x;       ///< [B*S, G, w], w even
  Heads y;            ///< [B*S, G, w]
  ConstView cosines;  ///< [positions, w/2]
  ConstView sines;    ///< [positions, w/2]
  std::int64_t position_start = 0;
  std::int64_t position_stride = 1;
  bool transpose = false;
  bool accumulate = false;  ///< y += instead of y =; then y is not x
};

void run(Stream& stream, const Rope& args);

}  // namespace hadal::kernels
