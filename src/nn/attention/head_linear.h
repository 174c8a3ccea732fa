// Linear layers to and from heads. Under tensor parallelism a rank holds the rows or columns of its own heads, a slice of the
// logical matrix; the products of the ranks with columns are partial sums.
#pragma once

#include <string>

#include "nn/attention/attention_options.h"
#include "nn/linear.h"

namespace hadal::nn {

/// Projection to heads: of the matrix [num_heads * width, in] the rows of the heads in options.heads. `num_heads`: of all ranks.
Linear to_heads(const std::string& name, const AttentionOptions& options, std::int64_t num_heads, std::int64_t width,
                std::int64_t in);
/// o_proj [d, H dv]: the columns of the heads in options.heads.
Linear from_heads(const std::string& name, const AttentionOptions& options);

}  // namespace hadal::nn
