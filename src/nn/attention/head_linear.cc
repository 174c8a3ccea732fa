#include "nn/attention/head_linear.h"

namespace hadal::nn {
namespace {

/// Normal weight of `shape`, sliced along `dim`.
Linear sliced(const std::string& name, const AttentionOptions& o, const Shape& shape, int dim) {
  const std::int64_t size = o.heads.size(shape[dim]);
  const Shape own = dim == 0 ? Shape({size, shape[1]}) : Shape({shape[0], size});
  return Linear(Parameter(name, own, o.storage(), {.init = Init::normal(o.init_std), .replication = Replication::kTensor},
                          {sliced_part(name, shape, dim, o.heads.begin(shape[dim]), size, 0)}));
}

}  // namespace

Linear to_heads(const std::string& name, const AttentionOptions& options, std::int64_t num_heads, std::int64_t width,
                std::int64_t in) {
  return sliced(name, options, {num_heads * width, in}, 0);
}

Linear from_heads(const std::string& name, const AttentionOptions& options) {
  return sliced(name, options, {options.hidden_size, options.num_heads * options.v_head_dim}, 1);
}

}  // namespace hadal::nn
