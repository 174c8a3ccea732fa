#include "kernels/rms_norm.h"

#include <algorithm>

#include "core/parallel_for.h"
#include "kernels/cpu/simd/rms_norm.h"
#include "kernels/cpu/simd/tables.h"
#include "kernels/cpu/simd/vector_ops.h"
#include "kernels/dispatch.h"

HADAL_SIMD_PICK(RmsNormRows, rms_norm_rows)

namespace hadal::kernels {
namespace {

constexpr std::int64_t kForwardGrain = 64;
// At most this many partial sums of d_gain, whatever T is.
constexpr std::int64_t kMaxPartials = 32;

void rms_norm_forward(Stream&, const RmsNormForward& args) {
  visit_float(args.y.dtype, [&]<class T>() {
    const std::int64_t width = args.gain.numel();
    const std::int64_t stride = args.x_stride == 0 ? width : args.x_stride;
    const T* x = args.x.as<T>();
    const T* gain = args.gain.as<T>();
    T* y = args.y.as<T>();
    T* rho = args.inverse_rms.as<T>();
    const auto& rows = simd::rms_norm_rows<T>();
    parallel_ranges(args.inverse_rms.numel(), kForwardGrain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t t = begin; t < end; ++t) rho[t] = rows.forward(width, x + t * stride, gain, args.eps, y + t * width);
    });
  });
}

void rms_norm_backward(Stream&, const RmsNormBackward& args) {
  visit_float(args.d_y.dtype, [&]<class T>() {
    const std::int64_t width = args.gain.numel();
    const std::int64_t num_rows = args.inverse_rms.numel();
    const std::int64_t x_stride = args.x_stride == 0 ? width : args.x_stride;
    const std::int64_t d_x_stride = args.d_x_stride == 0 ? width : args.d_x_stride;
    const T* x = args.x.as<T>();
    const T* gain = args.gain.as<T>();
    const T* rho = args.inverse_rms.as<T>();
    const T* d_y = args.d_y.as<T>();
    const T* residual = args.d_residual.empty() ? nullptr : args.d_residual.as<T>();
    T* d_x = args.d_x.as<T>();
    const auto& rows = simd::rms_norm_rows<T>();
    const std::int64_t grain = std::max<std::int64_t>(64, (num_rows + kMaxPartials - 1) / kMaxPartials);
    const std::int64_t num_partials = (num_rows + grain - 1) / grain;
    Tensor partials = Tensor::zeros({num_partials, width}, args.d_y.dtype);
    T* partial = partials.as<T>();
    parallel_ranges(num_rows, grain, [&](std::int64_t begin, std::int64_t end) {
      T* sum = partial + begin / grain * width;
      for (std::int64_t t = begin; t < end; ++t) {
        rows.backward(width, x + t * x_stride, gain, rho[t], d_y + t * width, residual == nullptr ? nullptr : residual + t * width,
                      d_x + t * d_x_stride, sum);
      }
    });
    T* d_gain = args.d_gain.as<T>();
    for (std::int64_t p = 0; p < num_partials; ++p) simd::vector_ops<T>().add(width, partial + p * width, d_gain);
  });
}

const RegisterCpu<RmsNormForward> registered_forward{rms_norm_forward};
const RegisterCpu<RmsNormBackward> registered_backward{rms_norm_backward};

}  // namespace
}  // namespace hadal::kernels
