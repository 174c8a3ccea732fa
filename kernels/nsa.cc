#include "kernels/nsa.h"

#include "kernels/attention_checks.h"

namespace hadal::kernels {
namespace {

void check_compression(const char* op, std::int64_t batch, std::int64_t length, std::int64_t stride, const ConstHeads& x,
                       const ConstHeads& logits, const ConstView& position, const ConstHeads& y) {
  HADAL_CHECK(length >= 1 && stride >= 1, "{}: blocks of length {}, stride {}", op, length, stride);
  HADAL_CHECK(batch >= 1 && x.tokens % batch == 0, "{}: batch {} of {} tokens", op, batch, x.tokens);
  check_heads(op, "logits", logits, x.dtype, x.tokens, x.heads, x.width);
  HADAL_CHECK(position.dtype == accumulation_dtype(x.dtype) && position.shape == Shape({length, x.width}), "{}: position is {} {}", op,
              name_of(position.dtype), position.shape.str());
  check_heads(op, "y", y, x.dtype, batch * num_compressed(x.tokens / batch, length, stride), x.heads, x.width);
}

template <class Args>
void check_importance(const Args& args) {
  const char* const op = Args::kName;
  check_attention_inputs(op, args.batch, args.q, args.k, args.k_shared, args.k);
  check_lse(op, args.lse, args.q);
  const std::int64_t l = args.block_length, d = args.block_stride, s = args.select_block;
  HADAL_CHECK(d >= 1 && l % d == 0 && s % d == 0 && l >= d && l <= s, "{}: block length {}, stride {}, selection block {}", op, l,
              d, s);
  HADAL_CHECK(args.query_start >= 0, "{}: query_start {}", op, args.query_start);
  HADAL_CHECK(args.num_groups >= 1 && args.q.heads % args.num_groups == 0, "{}: {} groups of {} heads", op, args.num_groups,
              args.q.heads);
}

void check_blocks(const char* op, const View& blocks, std::int64_t tokens, std::int64_t groups) {
  HADAL_CHECK(blocks.dtype == DType::kI32 && blocks.shape.rank() == 3 && blocks.shape[0] == tokens && blocks.shape[1] == groups &&
                  blocks.shape[2] >= 1,
              "{}: blocks are {} {} for {} queries, {} groups", op, name_of(blocks.dtype), blocks.shape.str(), tokens, groups);
}

template <class Args>
void check_selected(const Args& args) {
  const char* const op = Args::kName;
  HADAL_CHECK(args.select_block >= 1, "{}: selection blocks of {}", op, args.select_block);
  HADAL_CHECK(args.blocks.dtype == DType::kI32 && args.blocks.shape.rank() == 3 && args.blocks.shape[0] == args.q.tokens &&
                  args.blocks.shape[1] >= 1 && args.q.heads % args.blocks.shape[1] == 0,
              "{}: blocks are {} {} for {} queries of {} heads", op, name_of(args.blocks.dtype), args.blocks.shape.str(),
              args.q.tokens, args.q.heads);
}

}  // namespace

void run(Stream& stream, const NsaCompressForward& args) {
  check_compression(NsaCompressForward::kName, args.batch, args.block_length, args.block_stride, args.x, args.logits,
                    args.position, args.y);
  if (args.y.tokens > 0) launch(stream, args);
}

void run(Stream& stream, const NsaCompressBackward& args) {
  const char* const op = NsaCompressBackward::kName;
  check_compression(op, args.batch, args.block_length, args.block_stride, args.x, args.logits, args.position, args.d_y);
  check_heads(op, "d_x", args.d_x, args.x.dtype, args.x.tokens, args.x.heads, args.x.width);
  check_heads(op, "d_logits", args.d_logits, args.x.dtype, args.x.tokens, args.x.heads, args.x.width);
  HADAL_CHECK(args.d_position.dtype == args.position.dtype && args.d_position.shape == args.position.shape, "{}: d_position is {} {}",
              op, name_of(args.d_position.dtype), args.d_position.shape.str());
  launch(stream, args);
}

void run(Stream& stream, const NsaSelect& args) {
  check_importance(args);
  check_blocks(NsaSelect::kName, args.blocks, args.q.tokens, args.num_groups);
  if (args.q.tokens > 0) launch(stream, args);
}

void run(Stream& stream, const NsaImportance& args) {
  check_importance(args);
  const std::int64_t tokens = args.q.tokens;
  HADAL_CHECK(args.importance.dtype == accumulation_dtype(args.q.dtype) && args.importance.shape.rank() == 3 && args.importance.shape[0] == tokens &&
                  args.importance.shape[1] == args.num_groups &&
                  args.importance.shape[2] * args.select_block >= args.query_start + tokens / args.batch,
              "{}: importance is {} {} for {} queries, {} groups", NsaImportance::kName, name_of(args.importance.dtype),
              args.importance.shape.str(), tokens, args.num_groups);
  if (tokens > 0) launch(stream, args);
}

void run(Stream& stream, const NsaTopBlocks& args) {
  const char* const op = NsaTopBlocks::kName;
  const Shape& shape = args.importance.shape;
  HADAL_CHECK(shape.rank() == 3 && args.select_block >= 1 && args.query_start >= 0 && args.batch >= 1 &&
                  shape[0] % args.batch == 0 && shape[2] * args.select_block >= args.query_start + shape[0] / args.batch,
              "{}: importance {} of {} sequences from position {}, blocks of {}", op, shape.str(), args.batch, args.query_start,
              args.select_block);
  check_blocks(op, args.blocks, shape[0], shape[1]);
  if (shape[0] > 0) launch(stream, args);
}

void run(Stream& stream, const NsaSelectedForward& args) {
  const char* const op = NsaSelectedForward::kName;
  check_attention_inputs(op, args.batch, args.q, args.k, args.k_shared, args.v);
  check_selected(args);
  HADAL_CHECK(args.query_start >= 0, "{}: query_start {}", op, args.query_start);
  check_heads(op, "o", args.o, args.q.dtype, args.q.tokens, args.q.heads, args.v.width);
  check_lse(op, args.lse, args.q);
  if (args.q.tokens > 0) launch(stream, args);
}

void run(Stream& stream, const NsaSelectedBackward& args) {
  check_attention_gradients(args);
  check_selected(args);
  launch(stream, args);
}

}  // namespace hadal::kernels
