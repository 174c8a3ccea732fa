#include "kernels/router.h"

namespace hadal::kernels {
namespace {

void check_options(const RouterOptions& o, std::int64_t num_experts) {
  HADAL_CHECK(o.num_groups >= 1 && num_experts % o.num_groups == 0, "{} experts in {} groups", num_experts, o.num_groups);
  HADAL_CHECK(o.topk_groups >= 1 && o.topk_groups <= o.num_groups, "{} of {} groups", o.topk_groups, o.num_groups);
  HADAL_CHECK(o.top_k >= 1 && o.top_k <= num_experts / o.num_groups * o.topk_groups, "top {} of {} experts in {} of {} groups", o.top_k,
              num_experts, o.topk_groups, o.num_groups);
}

void check_rows(const SequenceRows& rows, std::int64_t count) {
  HADAL_CHECK(rows.batch >= 1 && rows.seq >= 0 && rows.valid_seq >= 0 && rows.valid_seq <= rows.seq && rows.row_begin >= 0 &&
                  rows.row_begin + count <= rows.batch * rows.seq,
              "{} rows from {} on, of {} sequences of {}, {} valid each", count, rows.row_begin, rows.batch, rows.seq, rows.valid_seq);
}

/// Empty views fit any.
bool same_dtype(ConstView a, ConstView b) { return a.empty() || b.empty() || a.dtype == b.dtype; }

bool holds(ConstView view, std::int64_t batch, std::int64_t width) { return view.numel() == batch * width; }

}  // namespace

void run(Stream& stream, const RouterForward& args) {
  check_options(args.options, args.logits.shape[1]);
  HADAL_CHECK(args.scores.shape == args.logits.shape && same_dtype(args.scores, args.logits) && same_dtype(args.weights, args.logits),
              "scores {} {}, logits {} {}, weights of {}", name_of(args.scores.dtype), args.scores.shape.str(), name_of(args.logits.dtype),
              args.logits.shape.str(), name_of(args.weights.dtype));
  HADAL_CHECK(args.experts.shape == args.weights.shape && args.experts.shape[1] == args.options.top_k, "experts {}, weights {}",
              args.experts.shape.str(), args.weights.shape.str());
  HADAL_CHECK(args.bias.empty() || args.bias.numel() == args.logits.shape[1], "bias {}", args.bias.shape.str());
  HADAL_CHECK(args.token.empty() || args.token.numel() == args.logits.shape[0], "tokens {}", args.token.shape.str());
  launch(stream, args);
}

void run(Stream& stream, const RouterBackward& args) {
  check_options(args.options, args.scores.shape[1]);
  HADAL_CHECK(args.d_logits.shape == args.scores.shape && args.d_weights.shape == args.experts.shape, "d_logits {}, d_weights {}",
              args.d_logits.shape.str(), args.d_weights.shape.str());
  HADAL_CHECK(args.d_scores.empty() || args.d_scores.shape == args.scores.shape, "d_scores {}", args.d_scores.shape.str());
  HADAL_CHECK(same_dtype(args.d_logits, args.scores) && same_dtype(args.d_weights, args.scores) && same_dtype(args.d_scores, args.scores),
              "scores of {}, d_logits of {}, d_weights of {}", name_of(args.scores.dtype), name_of(args.d_logits.dtype),
              name_of(args.d_weights.dtype));
  launch(stream, args);
}

void run(Stream& stream, const DispatchPlan& args) {
  const std::int64_t pairs = args.experts.numel();
  HADAL_CHECK(args.offsets.numel() == args.num_experts + 1 && args.row_token.numel() == pairs && args.row_pair.numel() == pairs &&
                  args.pair_row.numel() == pairs,
              "{} pairs, {} experts", pairs, args.num_experts);
  launch(stream, args);
}

void run(Stream& stream, const BalanceCounts& args) {
  const std::int64_t num_experts = args.scores.shape[1], batch = args.rows.batch;
  check_options(args.options, num_experts);
  check_rows(args.rows, args.scores.shape[0]);
  HADAL_CHECK(args.counts.numel() == num_experts && holds(args.chosen, batch, num_experts) &&
                  (args.raw_top_k.empty() || holds(args.raw_top_k, batch, num_experts)),
              "counts {}, chosen {}, raw_top_k {}", args.counts.shape.str(), args.chosen.shape.str(), args.raw_top_k.shape.str());
  HADAL_CHECK(args.sent.empty() || (args.sent.shape[0] == batch && num_experts % args.sent.shape[1] == 0),
              "{} experts, tokens per device {}", num_experts, args.sent.shape.str());
  launch(stream, args);
}

void run(Stream& stream, const BalanceLoss& args) {
  const std::int64_t num_experts = args.scores.shape[1], batch = args.rows.batch;
  check_options(args.options, num_experts);
  check_rows(args.rows, args.scores.shape[0]);
  HADAL_CHECK(args.d_scores.shape == args.scores.shape && same_dtype(args.d_scores, args.scores) && holds(args.chosen, batch, num_experts) &&
                  args.tokens >= args.rows.valid_seq,
              "scores {}, d_scores {}, chosen {}, {} tokens", args.scores.shape.str(), args.d_scores.shape.str(),
              args.chosen.shape.str(), args.tokens);
  HADAL_CHECK(args.sequence_alpha == 0 || holds(args.raw_top_k, batch, num_experts), "raw_top_k {}", args.raw_top_k.shape.str());
  HADAL_CHECK((args.device_alpha == 0 && args.communication_alpha == 0) ||
                  (args.sent.shape.rank() == 2 && args.sent.shape[0] == batch && num_experts % args.sent.shape[1] == 0),
              "{} experts, tokens per device {}", num_experts, args.sent.shape.str());
  launch(stream, args);
}

}  // namespace hadal::kernels
