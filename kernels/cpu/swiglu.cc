#include "kernels/swiglu.h"

#include "core/parallel_for.h"
#include "kernels/cpu/simd/swiglu.h"
#include "kernels/cpu/simd/tables.h"
#include "kernels/dispatch.h"

HADAL_SIMD_PICK(SwigluRows, swiglu_rows)

namespace hadal::kernels {
namespace {

constexpr std::int64_t kGrain = 32;

void swiglu_forward(Stream&, const SwigluForward& args) {
  visit_float(args.h.dtype, [&]<class T>() {
    const std::int64_t width = args.h.shape[1];
    const T* gate_up = args.gate_up.as<T>();
    const T* weight = args.row_weight.empty() ? nullptr : args.row_weight.as<T>();
    T* h = args.h.as<T>();
    const auto& rows = simd::swiglu_rows<T>();
    parallel_ranges(args.h.shape[0], kGrain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        const T* gate = gate_up + r * 2 * width;
        rows.forward(width, gate, gate + width, weight == nullptr ? T{1} : weight[r], h + r * width);
      }
    });
  });
}

void swiglu_backward(Stream&, const SwigluBackward& args) {
  visit_float(args.d_h.dtype, [&]<class T>() {
    const std::int64_t width = args.d_h.shape[1];
    const T* gate_up = args.gate_up.as<T>();
    const T* weight = args.row_weight.empty() ? nullptr : args.row_weight.as<T>();
    const T* d_h = args.d_h.as<T>();
    T* d_gate_up = args.d_gate_up.as<T>();
    T* d_weight = args.d_row_weight.empty() ? nullptr : args.d_row_weight.as<T>();
    const auto& rows = simd::swiglu_rows<T>();
    parallel_ranges(args.d_h.shape[0], kGrain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        const T* gate = gate_up + r * 2 * width;
        T* d_gate = d_gate_up + r * 2 * width;
        const T sum = rows.backward(width, gate, gate + width, weight == nullptr ? T{1} : weight[r], d_h + r * width, d_gate, d_gate + width);
        if (d_weight != nullptr) d_weight[r] = sum;
      }
    });
  });
}

const RegisterCpu<SwigluForward> registered_forward{swiglu_forward};
const RegisterCpu<SwigluBackward> registered_backward{swiglu_backward};

}  // namespace
}  // namespace hadal::kernels
