// Copies between [tokens, heads, width] matrices that lie in larger buffers: what context parallelism packs into messages and takes out
// of them.
#pragma once

#include "kernels/heads.h"
#include "kernels/op.h"

namespace hadal::kernels {

/// y = x, or y += x with `accumulate` (f32, f64, on CUDA f32 and bf16; sums in f32). Both [tokens, heads, width] of one dtype, with
/// strides of their own; they do not overlap.
struct CopyHeads {
  static constexpr const char* kName = "copy_heads";
  ConstHeads x;
  Heads y;
  bool accumulate = false;
};

void run(Stream& stream, const CopyHeads& args);

/// Rows [begin, begin + count) of a matrix.
ConstHeads token_rows(ConstHeads x, std::int64_t begin, std::int64_t count);
Heads token_rows(Heads x, std::int64_t begin, std::int64_t count);

}  // namespace hadal::kernels
