#include "kernels/router.h"

namespace hadal::kernels {
namespace {

void check_options(const RouterOptions& o, std::int64_t num_experts) {
  HADAL_CHECK(o.num_groups >= 1 && num_experts % o.num_groups == 0, "{} experts in {} groups", num_experts, o.num_groups);
  HADAL_CHECK(o.topk_groups >= 1 && o.topk_groups <= o.num_groups, "{} of {} groups", o.topk_groups, o.num_groups);
  HADAL_CHECK(o.top_k >= 1 && o.top_k <= num_experts / o.num_groups * o.topk_groups, "top {} of {} experts in {} of {} groups", o.top_k,
              num_experts, o.topk_groups, o.num_groups);
}

}  // namespace

void run(Stream& stream, const RouterForward& args) {
  check_options(args.options, args.logits.shape[1]);
  HADAL_CHECK(args.scores.shape == args.logits.shape, "scores {}, logits {}", args.scores.shape.str(), args.logits.shape.str());
  HADAL_CHECK(args.experts.shape == args.weights.shape && args.experts.shape[1] == args.options.top_k, "experts {}, weights {}",
              args.experts.shape.str(), args.weights.shape.str());
  HADAL_CHECK(args.bias.empty() || args.bias.numel() == args.logits.shape[1], "bias {}", args.bias.shape.str());
  launch(stream, args);
}

void run(Stream& stream, const RouterBackward& args) {
  check_options(args.options, args.scores.shape[1]);
  HADAL_CHECK(args.d_logits.shape == args.scores.shape && args.d_weights.shape == args.experts.shape, "d_logits {}, d_weights {}",
              args.d_logits.shape.str(), args.d_weights.shape.str());
  HADAL_CHECK(args.d_scores.empty() || args.d_scores.shape == args.scores.shape, "d_scores {}", args.d_scores.shape.str());
  launch(stream, args);
}

void run(Stream& stream, const DispatchPlan& args) {
  const std::int64_t pairs = args.experts.numel();
  HADAL_CHECK(args.offsets.numel() == args.num_experts + 1 && args.row_token.numel() == pairs && args.row_pair.numel() == pairs &&
                  args.pair_row.numel() == pairs,
              "{} pairs, {} experts", pairs, args.num_experts);
  launch(stream, args);
}

void run(Stream& stream, const BalanceLoss& args) {
  check_options(args.options, args.scores.shape[1]);
  HADAL_CHECK(args.batch >= 1 && args.scores.shape[0] % args.batch == 0 && args.valid_seq >= 0 &&
                  args.valid_seq <= args.scores.shape[0] / args.batch,
              "{} tokens in {} sequences, {} valid each", args.scores.shape[0], args.batch, args.valid_seq);
  const bool by_device = args.device_alpha != 0 || args.communication_alpha != 0;
  HADAL_CHECK(!by_device || args.scores.shape[1] % args.num_devices == 0, "{} experts on {} devices", args.scores.shape[1], args.num_devices);
  HADAL_CHECK_EQ(args.counts.numel(), args.scores.shape[1]);
  launch(stream, args);
}

}  // namespace hadal::kernels
