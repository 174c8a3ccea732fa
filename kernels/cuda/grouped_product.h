// The three grouped products as one: for every expert e, C_e[m, n] (+)= sum over k of A_e[m, k] B_e[n, k]; what the kernels of the
// grouped_*.cu files take.
//
//   form             A              B              C             m     n    k
//   forward          x [rows, in]   w_e [out, in]  y             rows  out  in
//   backward_input   d_y [rows,out] w_e            d_x           rows  in   out
//   backward_weight  d_y            x              d_w_e (f32)   out   in   rows
//
// The rows of an expert are known on the device alone. A persistent grid of blocks walks over tiles that each block finds from the
// offsets (grouped_tiles.cuh), so the host never waits for the routing.
#pragma once

#include <cstdint>

#include "core/stream.h"

namespace hadal::kernels::cuda {

enum class GroupedForm { kForward, kBackwardInput, kBackwardWeight };

struct GroupedProduct {
  GroupedForm form;
  const void* a;
  const void* b;
  void* c;
  const std::int64_t* offsets;  ///< [experts + 1], on the device
  int rows;                     ///< of all experts together
  int experts;
  int in, out;
  bool add;  ///< backward_weight: to what c holds; false overwrites it for experts that have rows
};

/// f32, any sizes: plain fused multiply-adds.
void multiply_grouped_f32(Stream& stream, const GroupedProduct& product, const char* op);
/// bf16, any sizes and alignment: mma.sync.
void multiply_grouped_bf16(Stream& stream, const GroupedProduct& product, const char* op);
/// bf16 where the copy engine can read the operands: widths that are multiples of 8, starts of 16 bytes.
bool fits_wgmma(const GroupedProduct& product);
void multiply_grouped_wgmma(Stream& stream, const GroupedProduct& product, const char* op);

/// A forward product whose w_e holds rows of gates and as many of ups, and the rows' SwiGLU.
struct GroupedSwiglu {
  GroupedProduct product;
  const float* row_weight;  ///< [rows] or nullptr
  void* h;                  ///< [rows, out / 2]
};

/// Both from one kernel, where gates and ups start at 16 bytes too.
bool fits_wgmma(const GroupedSwiglu& p);
void multiply_grouped_wgmma(Stream& stream, const GroupedSwiglu& p, const char* op);

}  // namespace hadal::kernels::cuda
