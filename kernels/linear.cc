#include "kernels/linear.h"

#include "kernels/gemm.h"

namespace hadal::kernels {

void linear_forward(Stream& stream, const ConstView& x, const ConstView& w, const View& y, double beta) {
  run(stream, Gemm{.a = x, .b = w, .c = y, .transpose_b = true, .beta = beta});
}

void linear_backward_input(Stream& stream, const ConstView& d_y, const ConstView& w, const View& d_x, double beta) {
  run(stream, Gemm{.a = d_y, .b = w, .c = d_x, .beta = beta});
}

void linear_backward_weight(Stream& stream, const ConstView& d_y, const ConstView& x, const View& d_w, double beta) {
  run(stream, Gemm{.a = d_y, .b = x, .c = d_w, .transpose_a = true, .beta = beta});
}

}  // namespace hadal::kernels
