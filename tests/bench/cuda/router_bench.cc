// The router, the dispatch plan and the balance ops at the sizes of V2-Lite and V3. Bytes are those of their arguments; the plan and the
// counts are so small that launches bound them.
#include <string>

#include "gpu_bench.h"
#include "kernels/router.h"

namespace hadal::bench {
namespace {

using kernels::RouterOptions;

void measure(Table& table, const std::string& shape, std::int64_t tokens, std::int64_t num_experts, const RouterOptions& options) {
  Stream& stream = table.stream();
  const std::int64_t top_k = options.top_k, pairs = tokens * top_k;
  const double row_bytes = 4.0 * static_cast<double>(tokens * num_experts), pair_bytes = 4.0 * static_cast<double>(pairs);
  const int turns = turns_for(2 * row_bytes);
  const auto values = [&](Shape of, std::uint64_t seed) { return Copies(random_tensor(stream, of, DType::kF32, seed), turns); };
  const auto integers = [&](Shape of) { return Copies(Tensor::zeros(of, DType::kI32, kGpu), turns); };
  const Copies logits = values({tokens, num_experts}, 1), d_weights = values({tokens, top_k}, 2);
  const Tensor bias = random_tensor(stream, {num_experts}, DType::kF32, 3, 0.01);
  Copies scores = values({tokens, num_experts}, 4), weights = values({tokens, top_k}, 5), d_logits = values({tokens, num_experts}, 6);
  Copies experts = integers({tokens, top_k}), pair_row = integers({tokens, top_k}), row_token = integers({pairs}), row_pair = integers({pairs});
  Tensor offsets = Tensor::empty({num_experts + 1}, DType::kI64, kGpu);
  Tensor counts = Tensor::zeros({num_experts}, DType::kI64, kGpu), chosen = Tensor::zeros({1, num_experts}, DType::kI64, kGpu);
  Tensor raw = Tensor::zeros({1, num_experts}, DType::kI64, kGpu), loss = Tensor::zeros({1}, DType::kF64, kGpu);
  const kernels::SequenceRows rows{.batch = 1, .seq = tokens, .valid_seq = tokens};

  const auto forward = [&](int t) {
    run(stream, kernels::RouterForward{.options = options,
                                       .logits = logits[t],
                                       .bias = bias,
                                       .token = {},
                                       .scores = scores[t],
                                       .experts = experts[t],
                                       .weights = weights[t]});
  };
  table.add_bytes("router_forward", shape, time_turns_ms(stream, turns, forward), 2 * row_bytes + 2 * pair_bytes);
  const auto backward = [&](int t) {
    run(stream, kernels::RouterBackward{.options = options,
                                        .scores = scores[t],
                                        .experts = experts[t],
                                        .d_weights = d_weights[t],
                                        .d_scores = {},
                                        .d_logits = d_logits[t]});
  };
  table.add_bytes("router_backward", shape, time_turns_ms(stream, turns, backward), 2 * row_bytes + 2 * pair_bytes);
  const auto plan = [&](int t) {
    run(stream, kernels::DispatchPlan{.num_experts = num_experts,
                                      .experts = experts[t],
                                      .offsets = offsets,
                                      .row_token = row_token[t],
                                      .row_pair = row_pair[t],
                                      .pair_row = pair_row[t]});
  };
  table.add_bytes("dispatch_plan", shape, time_turns_ms(stream, turns, plan), 4 * pair_bytes);
  for (const bool with_raw : {false, true}) {
    const auto count = [&](int t) {
      run(stream, kernels::BalanceCounts{.options = options,
                                         .rows = rows,
                                         .scores = scores[t],
                                         .experts = experts[t],
                                         .counts = counts,
                                         .chosen = chosen,
                                         .raw_top_k = with_raw ? raw.view() : View{},
                                         .sent = {}});
    };
    table.add_bytes(with_raw ? "balance_counts_raw" : "balance_counts", shape, time_turns_ms(stream, turns, count),
                    pair_bytes + (with_raw ? row_bytes : 0.0));
  }
  const auto balance = [&](int t) {
    run(stream, kernels::BalanceLoss{.options = options,
                                     .rows = rows,
                                     .tokens = tokens,
                                     .sequence_alpha = 1e-4,
                                     .scores = scores[t],
                                     .chosen = chosen,
                                     .raw_top_k = raw,
                                     .sent = {},
                                     .loss = loss,
                                     .d_scores = d_logits[t]});
  };
  table.add_bytes("balance_loss", shape, time_turns_ms(stream, turns, balance), 2 * row_bytes);
}

void body(Table& table) {
  measure(table, "16384 e64 k6", 16384, 64,
          {.score = RouterOptions::Score::kSoftmax, .group_score = RouterOptions::GroupScore::kMax, .top_k = 6, .normalize = false});
  measure(table, "16384 e256 k8 g8/4", 16384, 256, {.top_k = 8, .num_groups = 8, .topk_groups = 4, .scaling = 2.5});
}

const RegisterBench registered{"router", body};

}  // namespace
}  // namespace hadal::bench
