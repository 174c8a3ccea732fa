#include "tests/parallel/attention_layouts.h"

#include <numeric>

#include "comm/local/local_group.h"
#include "parallel/context_parallel.h"
#include "parallel/selection_sum.h"
#include "tests/support/gradient_check.h"

namespace hadal::test {
namespace {

constexpr const char* kPrefix = "model.layers.3.self_attn";

struct Problem {
  nn::AttentionOptions options;
  std::int64_t batch, seq;
  Tensor x, d_y;
  LogicalTensors weights;
};

/// Rows of whole sequences [B*S, w] that `shard` holds, or back: `put` adds local rows to the whole.
template <class Body>
void for_each_row(const nn::SequenceShard* shard, std::int64_t batch, std::int64_t seq, const Body& body) {
  const nn::Segment everything{0, seq};
  const std::span<const nn::Segment> segments = shard != nullptr ? shard->segments() : std::span(&everything, 1);
  std::int64_t local = 0;
  for (std::int64_t b = 0; b < batch; ++b) {
    for (const nn::Segment& segment : segments) {
      for (std::int64_t i = 0; i < segment.length; ++i) body(local++, b * seq + segment.position + i);
    }
  }
}

Tensor take_rows(const nn::SequenceShard* shard, const Problem& problem, ConstView whole, std::int64_t rows) {
  const std::int64_t width = whole.shape[1];
  Tensor local = Tensor::empty({rows, width}, whole.dtype);
  for_each_row(shard, problem.batch, problem.seq, [&](std::int64_t to, std::int64_t from) {
    std::copy_n(whole.as<double>() + from * width, width, local.as<double>() + to * width);
  });
  return local;
}

Tensor place_rows(const nn::SequenceShard* shard, const Problem& problem, ConstView local) {
  const std::int64_t width = local.shape[1];
  Tensor whole = Tensor::zeros({problem.batch * problem.seq, width}, local.dtype);
  for_each_row(shard, problem.batch, problem.seq, [&](std::int64_t from, std::int64_t to) {
    std::copy_n(local.as<double>() + from * width, width, whole.as<double>() + to * width);
  });
  return whole;
}

/// This rank's part of "y", "d_x" and the gradients.
LogicalTensors run_rank(const Problem& problem, nn::Attention& layer, const nn::SequenceShard* shard, std::int64_t own_seq) {
  Stream stream;
  nn::Context ctx{stream, problem.batch, own_seq};
  ctx.sequence = shard;
  const std::int64_t rows = problem.batch * own_seq;
  const Tensor x = take_rows(shard, problem, problem.x, rows), d_y = take_rows(shard, problem, problem.d_y, rows);
  nn::ParameterList parameters;
  layer.collect(parameters);
  nn::SavedPtr saved;
  const Tensor y = layer.forward(ctx, x, &saved);
  const Tensor d_x = layer.backward_input(ctx, d_y, *saved);
  layer.backward_weight(ctx, *saved);
  LogicalTensors results;
  add_gradients(results, parameters);
  results["y"] = place_rows(shard, problem, y);
  results["d_x"] = place_rows(shard, problem, d_x);
  return results;
}

LogicalTensors run_layout(const Problem& problem, AttentionLayout layout, const AttentionFaults& faults) {
  std::vector<LogicalTensors> of_rank(static_cast<std::size_t>(layout.cp * layout.tp));
  comm::run_local_group(layout.cp * layout.tp, [&](comm::Communicator& world) {
    const int tp_rank = world.rank() % layout.tp, cp_rank = world.rank() / layout.tp;
    std::vector<int> tp_ranks(static_cast<std::size_t>(layout.tp)), cp_ranks;
    std::iota(tp_ranks.begin(), tp_ranks.end(), cp_rank * layout.tp);
    for (int i = 0; i < layout.cp; ++i) cp_ranks.push_back(i * layout.tp + tp_rank);
    const auto tp = world.subgroup(tp_ranks, "tp"), cp = world.subgroup(cp_ranks, "cp");
    nn::AttentionOptions options = problem.options;
    options.heads = {tp_rank, layout.tp};
    const auto selection_sum = faults.selection_sum ? faults.selection_sum : parallel::make_selection_sum(*tp, options);
    const auto layer = nn::make_attention(options, kPrefix, nn::make_rope_table(options), selection_sum);
    nn::ParameterList parameters;
    layer->collect(parameters);
    set_values(parameters, problem.weights);
    std::unique_ptr<nn::SequenceShard> sequence, hooked;
    if (layout.cp > 1) sequence = std::make_unique<parallel::ContextParallel>(*cp, problem.seq);
    if (faults.sequence) hooked = faults.sequence(*sequence);
    of_rank[static_cast<std::size_t>(world.rank())] =
        run_rank(problem, *layer, hooked ? hooked.get() : sequence.get(), problem.seq / layout.cp);
  });
  LogicalTensors sum;
  for (const LogicalTensors& results : of_rank) add_tensors(sum, results);
  return sum;
}

}  // namespace

::testing::AssertionResult attention_equals_one_rank(const nn::AttentionOptions& options, AttentionLayout layout,
                                                     std::int64_t batch, std::int64_t seq, const AttentionFaults& faults) {
  const auto layer = nn::make_attention(options, kPrefix, nn::make_rope_table(options));
  nn::ParameterList parameters;
  layer->collect(parameters);
  randomize(parameters, 11, 0.4);
  Problem problem{options,
                  batch,
                  seq,
                  normal_tensor({batch * seq, options.hidden_size}, 4),
                  normal_tensor({batch * seq, options.hidden_size}, 5),
                  values_of(parameters)};
  const LogicalTensors wanted = run_rank(problem, *layer, nullptr, seq);
  const LogicalTensors got = run_layout(problem, layout, faults);
  return same_tensors(got, wanted) << "\n  cp " << layout.cp << " tp " << layout.tp << " B " << batch << " S " << seq;
}

nn::AttentionOptions many_gqa() {
  nn::AttentionOptions o = small_gqa();
  o.num_heads = 8;
  o.num_kv_heads = 4;
  return o;
}

nn::AttentionOptions sparse(nn::AttentionOptions options) {
  options.nsa = small_nsa();
  return options;
}

}  // namespace hadal::test
