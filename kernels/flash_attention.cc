#include "kernels/flash_attention.h"

#include "kernels/attention_checks.h"

namespace hadal::kernels {
namespace {

void check_mask(const char* op, const AttentionMask& mask) {
  if (mask.kind == AttentionMask::Kind::kBlocks) {
    HADAL_CHECK(mask.block_length >= 1 && mask.block_stride >= 1, "{}: blocks of length {}, stride {}", op, mask.block_length,
                mask.block_stride);
  } else {
    HADAL_CHECK(mask.window >= 0, "{}: window {}", op, mask.window);
  }
}

}  // namespace

void run(Stream& stream, const FlashAttentionForward& args) {
  const char* const op = FlashAttentionForward::kName;
  check_attention_inputs(op, args.batch, args.q, args.k, args.k_shared, args.v);
  check_mask(op, args.mask);
  HADAL_CHECK(args.query_start >= 0, "{}: query_start {}", op, args.query_start);
  check_heads(op, "o", args.o, args.q.dtype, args.q.tokens, args.q.heads, args.v.width);
  check_lse(op, args.lse, args.q);
  if (args.q.tokens > 0) launch(stream, args);
}

void run(Stream& stream, const FlashAttentionBackward& args) {
  check_attention_gradients(args);
  check_mask(FlashAttentionBackward::kName, args.mask);
  launch(stream, args);
}

}  // namespace hadal::kernels
