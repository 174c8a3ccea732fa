#include "kernels/branch_gate.h"

#include <algorithm>

#include "core/parallel_for.h"
#include "kernels/cpu/simd/branch_gate.h"
#include "kernels/cpu/simd/tables.h"
#include "kernels/cpu/simd/vector_ops.h"
#include "kernels/dispatch.h"

HADAL_SIMD_PICK(BranchGateRows, branch_gate_rows)

namespace hadal::kernels {
namespace {

constexpr std::int64_t kGrain = 32;
// At most this many partial sums of d_bias, whatever T is.
constexpr std::int64_t kMaxPartials = 32;

void branch_gate_forward(Stream&, const BranchGateForward& args) {
  visit_float(args.y.dtype, [&]<class T>() {
    const std::int64_t rows = args.g.shape[0], heads = args.heads, gates = 3 * heads;
    const std::int64_t width = rows > 0 ? args.y.numel() / rows : 0;
    const T *logits = args.logits.as<T>(), *bias = args.bias.as<T>();
    const T *o0 = args.o[0].as<T>(), *o1 = args.o[1].as<T>(), *o2 = args.o[2].as<T>();
    T *g = args.g.as<T>(), *y = args.y.as<T>();
    const auto& table = simd::branch_gate_rows<T>();
    parallel_ranges(rows, kGrain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t t = begin; t < end; ++t) {
        const std::int64_t at = t * width;
        table.forward(heads, width / heads, logits + t * gates, bias, o0 + at, o1 + at, o2 + at, g + t * gates, y + at);
      }
    });
  });
}

void branch_gate_backward(Stream&, const BranchGateBackward& args) {
  visit_float(args.d_y.dtype, [&]<class T>() {
    const std::int64_t rows = args.g.shape[0], heads = args.heads, gates = 3 * heads;
    const std::int64_t width = rows > 0 ? args.d_y.numel() / rows : 0;
    const T *g = args.g.as<T>(), *d_y = args.d_y.as<T>();
    const T *o0 = args.o[0].as<T>(), *o1 = args.o[1].as<T>(), *o2 = args.o[2].as<T>();
    T *d_o0 = args.d_o[0].as<T>(), *d_o1 = args.d_o[1].as<T>(), *d_o2 = args.d_o[2].as<T>();
    T *d_logits = args.d_logits.as<T>(), *d_bias = args.d_bias.as<T>();
    const auto& table = simd::branch_gate_rows<T>();
    const std::int64_t grain = std::max(kGrain, (rows + kMaxPartials - 1) / kMaxPartials);
    Tensor partials = Tensor::zeros({(rows + grain - 1) / grain, gates}, args.d_y.dtype);
    T* partial = partials.as<T>();
    parallel_ranges(rows, grain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t t = begin; t < end; ++t) {
        const std::int64_t at = t * width;
        table.backward(heads, width / heads, g + t * gates, o0 + at, o1 + at, o2 + at, d_y + at, d_o0 + at, d_o1 + at, d_o2 + at,
                       d_logits + t * gates, partial + begin / grain * gates);
      }
    });
    for (std::int64_t p = 0; p < partials.shape()[0]; ++p) simd::vector_ops<T>().add(gates, partial + p * gates, d_bias);
  });
}

const RegisterCpu<BranchGateForward> registered_forward{branch_gate_forward};
const RegisterCpu<BranchGateBackward> registered_backward{branch_gate_backward};

}  // namespace
}  // namespace hadal::kernels
