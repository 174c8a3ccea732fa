#include "kernels/grouped_gemm.h"

#include "core/parallel_for.h"
#include "kernels/cpu/gemm_tile.h"
#include "kernels/dispatch.h"
#include "kernels/op.h"

namespace hadal::kernels {
namespace {

using cpu::Transpose;
using std::int64_t;

void forward(Stream&, const GroupedGemmForward& args) {
  visit_float(args.y.dtype, [&]<class T>() {
    const int64_t* rows = args.offsets.as<int64_t>();
    const int64_t out = args.w.shape[1], in = args.w.shape[2];
    const T* x = args.x.as<T>();
    const T* w = args.w.as<T>();
    T* y = args.y.as<T>();
    parallel_for(args.w.shape[0], [&](int64_t e) {
      cpu::gemm_tile<T>(Transpose::kNo, Transpose::kYes, rows[e + 1] - rows[e], out, in, 1, x + rows[e] * in, in,
                        w + e * out * in, in, 0, y + rows[e] * out, out);
    });
  });
}

void backward_input(Stream&, const GroupedGemmBackwardInput& args) {
  visit_float(args.d_x.dtype, [&]<class T>() {
    const int64_t* rows = args.offsets.as<int64_t>();
    const int64_t out = args.w.shape[1], in = args.w.shape[2];
    const T* d_y = args.d_y.as<T>();
    const T* w = args.w.as<T>();
    T* d_x = args.d_x.as<T>();
    parallel_for(args.w.shape[0], [&](int64_t e) {
      cpu::gemm_tile<T>(Transpose::kNo, Transpose::kNo, rows[e + 1] - rows[e], in, out, 1, d_y + rows[e] * out, out,
                        w + e * out * in, in, 0, d_x + rows[e] * in, in);
    });
  });
}

void backward_weight(Stream&, const GroupedGemmBackwardWeight& args) {
  visit_float(args.d_w.dtype, [&]<class T>() {
    const int64_t* rows = args.offsets.as<int64_t>();
    const int64_t out = args.d_w.shape[1], in = args.d_w.shape[2];
    const T* d_y = args.d_y.as<T>();
    const T* x = args.x.as<T>();
    T* d_w = args.d_w.as<T>();
    parallel_for(args.d_w.shape[0], [&](int64_t e) {
      cpu::gemm_tile<T>(Transpose::kYes, Transpose::kNo, out, in, rows[e + 1] - rows[e], 1, d_y + rows[e] * out, out,
                        x + rows[e] * in, in, 1, d_w + e * out * in, in);
    });
  });
}

const RegisterCpu<GroupedGemmForward> registered_forward{forward};
const RegisterCpu<GroupedGemmBackwardInput> registered_backward_input{backward_input};
const RegisterCpu<GroupedGemmBackwardWeight> registered_backward_weight{backward_weight};

}  // namespace
}  // namespace hadal::kernels
