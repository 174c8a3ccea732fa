// Rows that attention needs of whole sequences, where a rank holds some of them: gathered before, their gradients summed and
// scattered after. Whole sequences: nothing moves.
#pragma once

#include <initializer_list>

#include "nn/layer.h"

namespace hadal::nn {

/// Each [own rows, w] of a spacing becomes [B * count, w].
void gather_rows(const Context& ctx, RowSpacing spacing, std::initializer_list<Tensor*> matrices);
/// Each [B * count, w] becomes [own_rows, w]: the sum over the ranks, of the rows that lie here.
void reduce_scatter_rows(const Context& ctx, RowSpacing spacing, std::int64_t own_rows, std::initializer_list<Tensor*> matrices);

/// The same for tokens: [B*s, w] and [B*S, w].
inline void gather_tokens(const Context& ctx, std::initializer_list<Tensor*> matrices) {
  gather_rows(ctx, {1, ctx.whole_seq()}, matrices);
}
inline void reduce_scatter_tokens(const Context& ctx, std::initializer_list<Tensor*> matrices) {
  reduce_scatter_rows(ctx, {1, ctx.whole_seq()}, ctx.batch * ctx.seq, matrices);
}

/// Room for the gradient of such rows: zeros where several calls add to it.
Tensor key_gradient(const Context& ctx, const Tensor& like);

}  // namespace hadal::nn
