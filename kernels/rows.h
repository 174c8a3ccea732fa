// Moving rows: embedding, expert dispatch and combine. Sums run in a fixed order, in accumulation_dtype.
#pragma once

#include "kernels/op.h"
#include "core/tensor.h"

namespace hadal::kernels {

/// y[r] = x[index[r]]; an index of -1 gives a row of zeros. x [N, d], index I32 [R], y [R, d].
struct GatherRows {
  static constexpr const char* kName = "gather_rows";
  ConstView x;
  ConstView index;
  View y;
};

/// y[index[t, k]] = x[t]; -1 is skipped. x [T, d], index I32 [T, K], no row named twice, y [R, d], of which rows that nothing names keep
/// what they hold. The same move as GatherRows where index is the inverse of its list, but each row is read once.
struct SpreadRows {
  static constexpr const char* kName = "spread_rows";
  ConstView x;
  ConstView index;
  View y;
};

/// y[t] = base[t] + sum over k ascending of x[index[t, k]]; an index of -1 adds nothing. x [R, d], index I32 [T, K], base [T, d] or
/// empty, y [T, d] (may be base).
struct CombineRows {
  static constexpr const char* kName = "combine_rows";
  ConstView x;
  ConstView index;
  ConstView base;
  View y;
};

/// d_x[index[r]] += d_y[r], r ascending; -1 is skipped. The embedding's gradient. d_x [N, d] of accumulation_dtype, index I32 [R],
/// d_y [R, d].
struct ScatterAddRows {
  static constexpr const char* kName = "scatter_add_rows";
  ConstView d_y;
  ConstView index;
  View d_x;
};

/// y = a + b, same shape; y may be a or b.
struct Add {
  static constexpr const char* kName = "add";
  ConstView a, b;
  View y;
};

void run(Stream& stream, const GatherRows& args);
void run(Stream& stream, const SpreadRows& args);
void run(Stream& stream, const CombineRows& args);
void run(Stream& stream, const ScatterAddRows& args);
void run(Stream& stream, const Add& args);

}  // namespace hadal::kernels
