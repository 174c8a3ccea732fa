// The three products of a linear layer y = x w^T, as layers call them.
// T tokens, in and out features; contiguous. x, w and d_y of one dtype; y and d_x of it or of its accumulation dtype (router logits);
// d_w of the accumulation dtype.
#pragma once

#include "core/stream.h"
#include "core/tensor.h"

namespace hadal::kernels {

/// y = x w^T + beta y. x [T, in], w [out, in], y [T, out].
void linear_forward(Stream& stream, const ConstView& x, const ConstView& w, const View& y, double beta = 0);
/// d_x = d_y w + beta d_x. d_y [T, out], w [out, in], d_x [T, in].
void linear_backward_input(Stream& stream, const ConstView& d_y, const ConstView& w, const View& d_x, double beta = 0);
/// d_w = d_y^T x + beta d_w. d_y [T, out], x [T, in], d_w [out, in].
void linear_backward_weight(Stream& stream, const ConstView& d_y, const ConstView& x, const View& d_w, double beta = 1);

}  // namespace hadal::kernels
