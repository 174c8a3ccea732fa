// Moves of rows at the sizes of V2-Lite: dispatch and combine of experts, the embedding and its gradient, copies of heads. Bytes are
// those that must move: each row of the source once, each row of the result once.
#include <set>
#include <vector>

#include "core/rng.h"
#include "gpu_bench.h"
#include "kernels/copy_heads.h"
#include "kernels/cuda/attention_statistics.h"
#include "kernels/router.h"
#include "kernels/rows.h"

namespace hadal::bench {
namespace {

constexpr std::int64_t kTokens = 16384, kWidth = 2048, kSlots = 6, kExperts = 64, kVocabulary = 102400;
constexpr double kRowBytes = kWidth * 2.0;

void dispatch(Table& table) {
  Stream& stream = table.stream();
  const Tensor logits = random_tensor(stream, {kTokens, kExperts}, DType::kF32, 1);
  Tensor scores = Tensor::empty({kTokens, kExperts}, DType::kF32, kGpu), weights = Tensor::empty({kTokens, kSlots}, DType::kF32, kGpu);
  Tensor experts = Tensor::empty({kTokens, kSlots}, DType::kI32, kGpu), pair_row = Tensor::empty({kTokens, kSlots}, DType::kI32, kGpu);
  Tensor row_token = Tensor::empty({kTokens * kSlots}, DType::kI32, kGpu), row_pair = Tensor::empty({kTokens * kSlots}, DType::kI32, kGpu);
  Tensor offsets = Tensor::empty({kExperts + 1}, DType::kI64, kGpu);
  run(stream, kernels::RouterForward{
                  .options = {.top_k = kSlots}, .logits = logits, .bias = {}, .token = {}, .scores = scores, .experts = experts, .weights = weights});
  run(stream,
      kernels::DispatchPlan{
          .num_experts = kExperts, .experts = experts, .offsets = offsets, .row_token = row_token, .row_pair = row_pair, .pair_row = pair_row});

  Tensor x = random_tensor(stream, {kTokens, kWidth}, DType::kBf16, 2);
  Tensor rows = Tensor::empty({kTokens * kSlots, kWidth}, DType::kBf16, kGpu);
  const std::string shape = "16384x2048 k6 e64";
  const double bytes = kRowBytes * kTokens * (1 + kSlots);
  const double spread = time_turns_ms(stream, 1, [&](int) { run(stream, kernels::SpreadRows{.x = x, .index = pair_row, .y = rows}); });
  table.add_bytes("permute", shape, spread, bytes);
  const double gather = time_turns_ms(stream, 1, [&](int) { run(stream, kernels::GatherRows{.x = x, .index = row_token, .y = rows}); });
  table.add_bytes("permute_by_gather", shape, gather, bytes);
  const double combine = time_turns_ms(stream, 1, [&](int) { run(stream, kernels::CombineRows{.x = rows, .index = pair_row, .base = {}, .y = x}); });
  table.add_bytes("unpermute", shape, combine, bytes);
  const double onto = time_turns_ms(stream, 1, [&](int) { run(stream, kernels::CombineRows{.x = rows, .index = pair_row, .base = x, .y = x}); });
  table.add_bytes("unpermute_onto_shared", shape, onto, bytes + kRowBytes * kTokens);
}

void embedding(Table& table) {
  Stream& stream = table.stream();
  // A few tokens are frequent, as in text: the third power of a uniform number.
  const Random random(3, RandomPurpose::kSynthetic);
  Tensor ids = Tensor::empty({kTokens}, DType::kI32);
  for (std::int64_t t = 0; t < kTokens; ++t) {
    const double u = random.uniform(static_cast<std::uint64_t>(t));
    ids.as<std::int32_t>()[t] = static_cast<std::int32_t>(u * u * u * kVocabulary);
  }
  const auto distinct = static_cast<double>(std::set<std::int32_t>(ids.as<std::int32_t>(), ids.as<std::int32_t>() + kTokens).size());
  const Tensor index = to_device(stream, ids, kGpu);
  const double forward_bytes = kRowBytes * (kTokens + distinct), backward_bytes = kRowBytes * kTokens + 4 * kRowBytes * distinct;
  const int turns = turns_for(forward_bytes);
  const Copies weight(random_tensor(stream, {kVocabulary, kWidth}, DType::kBf16, 4), turns);
  Copies h(Tensor::empty({kTokens, kWidth}, DType::kBf16, kGpu), turns), gradient(Tensor::zeros({kVocabulary, kWidth}, DType::kF32, kGpu), turns);
  const auto forward = [&](int t) { run(stream, kernels::GatherRows{.x = weight[t], .index = index, .y = h[t]}); };
  table.add_bytes("embedding_forward", "16384x2048 v102400", time_turns_ms(stream, turns, forward), forward_bytes);
  const auto backward = [&](int t) { run(stream, kernels::ScatterAddRows{.d_y = h[t], .index = index, .d_x = gradient[t]}); };
  table.add_bytes("embedding_backward", "16384x2048 v102400", time_turns_ms(stream, turns, backward), backward_bytes);
}

void heads(Table& table) {
  Stream& stream = table.stream();
  constexpr std::int64_t kHeads = 16, kTotal = 256, kKey = 128;
  const double bytes = 2.0 * kTokens * kHeads * kKey * 2;
  const int turns = turns_for(bytes);
  const Copies packed(random_tensor(stream, {kTokens, kHeads, kTotal}, DType::kBf16, 5), turns);
  Copies out(Tensor::zeros({kTokens, kHeads, kKey}, DType::kBf16, kGpu), turns);
  for (const bool accumulate : {false, true}) {
    const double ms = time_turns_ms(stream, turns, [&](int t) {
      run(stream, kernels::CopyHeads{.x = kernels::heads_of(packed[t].view(), kHeads, kTotal, kKey, kKey),
                                     .y = kernels::heads_of(out[t].view(), kHeads, kKey, 0, kKey),
                                     .accumulate = accumulate});
    });
    table.add_bytes(accumulate ? "add_heads" : "copy_heads", "16384 h16 128 of 256", ms, accumulate ? 1.5 * bytes : bytes);
  }
}

// What attention's backward pass knows of each query before it begins: <o, d_o> beside the log-sum-exp.
void statistics(Table& table) {
  Stream& stream = table.stream();
  constexpr std::int64_t kHeads = 16, kHead = 128, kQueries = 2 * kTokens;
  const int turns = turns_for(4.0 * kQueries * kHeads * kHead);
  const Copies o(random_tensor(stream, {kQueries, kHeads * kHead}, DType::kBf16, 6), turns);
  const Copies d_o(random_tensor(stream, {kQueries, kHeads * kHead}, DType::kBf16, 7), turns);
  const Copies lse(random_tensor(stream, {kQueries, kHeads}, DType::kF32, 8), turns);
  const auto queue = static_cast<cudaStream_t>(stream.native());
  const double ms = time_turns_ms(stream, turns, [&](int t) {
    kernels::FlashAttentionBackward args{};
    args.q = args.k = args.v = args.o = kernels::heads_of(o[t].view(), kHeads, kHead, 0, kHead);
    args.d_o = kernels::heads_of(d_o[t].view(), kHeads, kHead, 0, kHead);
    args.lse = lse[t];
    kernels::cuda::row_statistics(queue, kGpu, args);
  });
  table.add_bytes("attention_statistics", "32768 h16 128", ms, static_cast<double>(o[0].bytes() + d_o[0].bytes() + 3 * lse[0].bytes()));
}

const RegisterBench registered_dispatch{"rows_dispatch", dispatch};
const RegisterBench registered_embedding{"rows_embedding", embedding};
const RegisterBench registered_heads{"rows_heads", heads};
const RegisterBench registered_statistics{"rows_statistics", statistics};

}  // namespace
}  // namespace hadal::bench
