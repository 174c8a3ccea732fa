// Which rows of queries meet which rows of keys. Whole sequences: one call for all of them. Under context parallelism the queries
// here are segments of longer sequences, their keys those of all ranks: one call for each sequence and segment, whose gradients
// of keys add up. Rows of queries are those of the tokens here; rows of `tokens` those of whole sequences, [B*S].
#pragma once

#include <vector>

#include "kernels/flash_attention.h"
#include "nn/attention/attention_options.h"
#include "nn/layer.h"

namespace hadal::nn {

/// One call: `batch` equal sequences of consecutive rows.
struct AttentionSpan {
  std::int64_t batch = 1;
  std::int64_t query = 0, queries = 0;  ///< first row of q, o, lse and their gradients; rows
  std::int64_t key = 0, keys = 0;       ///< first row of k and v; rows
  std::int64_t shared = 0;              ///< first row of k_shared; as many rows
  std::int64_t query_start = 0;         ///< position of the first query, counted from the first key
};
using AttentionSpans = std::vector<AttentionSpan>;

/// Rows [from, from + count) of whole sequences that keys in rows [to, to + count) are made from.
struct RowRange {
  std::int64_t from = 0, to = 0, count = 0;
};

/// Keys of one branch of attention.
struct KeyPlan {
  std::int64_t rows = 0;         ///< of all keys
  std::vector<RowRange> ranges;  ///< what they are made from
  AttentionSpans spans;          ///< `shared` counts rows of whole sequences
};

/// All queries of one sequence against all keys, in one call: decoding.
inline AttentionSpans one_span(std::int64_t queries, std::int64_t keys, std::int64_t query_start) {
  return {{.queries = queries, .keys = keys, .query_start = query_start}};
}

/// Keys that lie in the rows of whole sequences, as gathered.
KeyPlan token_keys(const Context& ctx);
/// Keys made for the tokens up to the last one here, packed sequence by sequence.
KeyPlan causal_keys(const Context& ctx);
/// Keys made for the tokens here and for the window - 1 before each segment, packed segment by segment.
KeyPlan window_keys(const Context& ctx, std::int64_t window);
/// The window's calls on the keys of another plan.
AttentionSpans window_spans(const Context& ctx, std::int64_t window, const KeyPlan& plan);
/// Compressed entries, in the rows of whole sequences, [B*Nc].
KeyPlan entry_keys(const Context& ctx, const NsaOptions& nsa);
/// Keys made for the entries that the last token here sees, packed sequence by sequence.
KeyPlan causal_entry_keys(const Context& ctx, const NsaOptions& nsa);

/// Pooling of tokens into the compressed entries that this rank makes: those whose block starts at a token here. Blocks reach up
/// to block_length - 1 tokens past their segment.
struct PoolSpan {
  std::int64_t batch = 1;
  std::int64_t token = 0, tokens = 0;   ///< first row of whole sequences; rows
  std::int64_t entry = 0, entries = 0;  ///< first row of this rank's entries; rows
  std::int64_t position = 0;            ///< of the first token
};
using PoolSpans = std::vector<PoolSpan>;
PoolSpans pool_spans(const Context& ctx, const NsaOptions& nsa);
/// Rows of this rank's entries.
std::int64_t entry_rows(const PoolSpans& spans);
/// Compressed entries of a sequence.
RowSpacing entry_spacing(const Context& ctx, const NsaOptions& nsa);

/// Rows [first, first + count) of Heads or ConstHeads.
template <class AnyHeads>
AnyHeads rows_of(AnyHeads x, std::int64_t first, std::int64_t count) {
  using Byte = std::conditional_t<std::is_const_v<std::remove_pointer_t<decltype(x.data)>>, const char, char>;
  if (x.defined()) x.data = static_cast<Byte*>(x.data) + first * x.token_stride * static_cast<std::int64_t>(size_of(x.dtype));
  x.tokens = count;
  return x;
}

/// Shapes as in kernels/flash_attention.h; k_shared may be undefined.
struct AttentionInput {
  kernels::ConstHeads q, k, k_shared, v;
};

/// What the backward pass reads and overwrites; the gradients of keys are added to what they hold with `add_to_keys`.
struct AttentionGradient {
  kernels::ConstHeads o;
  ConstView lse;
  kernels::ConstHeads d_o;
  kernels::Heads d_q, d_k, d_k_shared, d_v;
  bool add_to_keys = false;
};

/// The rows of one call, into the arguments of an attention op.
template <class Args>
void set_inputs(Args& args, const AttentionSpan& span, const AttentionInput& in) {
  args.batch = span.batch;
  args.query_start = span.query_start;
  args.q = rows_of(in.q, span.query, span.queries);
  args.k = rows_of(in.k, span.key, span.keys);
  args.k_shared = rows_of(in.k_shared, span.shared, span.keys);
  args.v = rows_of(in.v, span.key, span.keys);
}
template <class Args>
void set_gradients(Args& args, const AttentionSpan& span, const AttentionGradient& g) {
  args.o = rows_of(g.o, span.query, span.queries);
  args.lse = g.lse.rows(span.query, span.query + span.queries);
  args.d_o = rows_of(g.d_o, span.query, span.queries);
  args.d_q = rows_of(g.d_q, span.query, span.queries);
  args.d_k = rows_of(g.d_k, span.key, span.keys);
  args.d_k_shared = rows_of(g.d_k_shared, span.shared, span.keys);
  args.d_v = rows_of(g.d_v, span.key, span.keys);
  args.add_to_keys = g.add_to_keys;
}

/// Flash attention over all spans; o and lse have the rows of q.
void attend(Stream& stream, const AttentionSpans& spans, const kernels::AttentionMask& mask, double scale,
            const AttentionInput& in, kernels::Heads o, View lse);
void attend_backward(Stream& stream, const AttentionSpans& spans, const kernels::AttentionMask& mask, double scale,
                     const AttentionInput& in, const AttentionGradient& gradient);

}  // namespace hadal::nn
