// The products of E linear layers, one per expert, over rows that are sorted by expert: tasks of row blocks over all experts.
//
// Shape legend: R rows, E experts, in and out features. Rows offsets[e] .. offsets[e + 1] - 1 belong to expert e; groups may
// be empty. Rows past the last offset belong to nobody: they are not written, and not seen by d_w, whatever they hold.
// All float views of one dtype, d_w of its accumulation dtype: f32 or f64 on the CPU, f32 or bf16 (with sums and d_w in
// f32) on CUDA. Bits of a row depend on that row and its expert alone, on the CPU up to the rule of kernels/gemm.h (groups of at
// most four rows), never on the thread count.
//
// On CUDA the offsets are read on the device alone, so the call returns before the routing is known; nobody checks them, and there
// are at most 256 experts.
#pragma once

#include "core/stream.h"
#include "core/tensor.h"

namespace hadal::kernels {

/// y_r = x_r w_e^T.
struct GroupedGemmForward {
  static constexpr const char* kName = "grouped_gemm_forward";
  ConstView x;        ///< [R, in]
  ConstView offsets;  ///< I64 [E + 1], rising from 0 to at most R
  ConstView w;        ///< [E, out, in]
  View y;             ///< [R, out]
};

/// d_x_r = d_y_r w_e.
struct GroupedGemmBackwardInput {
  static constexpr const char* kName = "grouped_gemm_backward_input";
  ConstView d_y;      ///< [R, out]
  ConstView offsets;  ///< I64 [E + 1]
  ConstView w;        ///< [E, out, in]
  View d_x;           ///< [R, in]
};

/// d_w_e += sum over the rows of e of d_y_r^T x_r, or is set to it: then d_w is not read, and 0 where an expert has no rows.
struct GroupedGemmBackwardWeight {
  static constexpr const char* kName = "grouped_gemm_backward_weight";
  ConstView d_y;      ///< [R, out]
  ConstView x;        ///< [R, in]
  ConstView offsets;  ///< I64 [E + 1]
  View d_w;           ///< [E, out, in]
  bool add = true;    ///< false: overwritten
};

void run(Stream& stream, const GroupedGemmForward& args);
void run(Stream& stream, const GroupedGemmBackwardInput& args);
void run(Stream& stream, const GroupedGemmBackwardWeight& args);

}  // namespace hadal::kernels
