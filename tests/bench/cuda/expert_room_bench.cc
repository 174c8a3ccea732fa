// Planning a dispatch into bounded room, at the sizes of V2-Lite and V3: 16384 tokens of a rank to 8 and to 64 ranks, with a quarter more room
// than an even load needs. Bytes are those of the arguments; launches bound it, as the dispatch plan.
#include "kernels/expert_room.h"

#include <algorithm>
#include <string>

#include "gpu_bench.h"
#include "kernels/router.h"

namespace hadal::bench {
namespace {

void measure(Table& table, const std::string& shape, std::int64_t tokens, std::int64_t num_experts, std::int64_t top_k, std::int64_t ranks,
             std::int64_t room) {
  Stream& stream = table.stream();
  const std::int64_t there = std::min(top_k, num_experts / ranks), sent = ranks * room, width = std::min(ranks, top_k);
  const Tensor logits = random_tensor(stream, {tokens, num_experts}, DType::kF32, 1);
  const auto ints = [](Shape of) { return Tensor::empty(of, DType::kI32, kGpu); };
  const auto floats = [](Shape of) { return Tensor::empty(of, DType::kF32, kGpu); };
  Tensor scores = floats({tokens, num_experts}), weights = floats({tokens, top_k}), experts = ints({tokens, top_k});
  run(stream, kernels::RouterForward{
                  .options = {.top_k = top_k}, .logits = logits, .bias = {}, .token = {}, .scores = scores, .experts = experts, .weights = weights});
  Tensor sent_row = ints({sent}), sent_experts = ints({sent, there}), sent_weights = floats({sent, there}), row_sends = ints({tokens, width}),
         pair_sends = ints({tokens, top_k}), slot_row = ints({sent, there});
  Tensor overflow = Tensor::zeros({1}, DType::kI64, kGpu), offsets = Tensor::empty({num_experts / ranks + 1}, DType::kI64, kGpu);
  const auto sends = [&] {
    run(stream, kernels::ExpertSends{.num_experts = num_experts,
                                     .num_places = ranks,
                                     .copies = 1,
                                     .experts = experts,
                                     .weights = weights,
                                     .sent_row = sent_row,
                                     .sent_experts = sent_experts,
                                     .sent_weights = sent_weights,
                                     .row_sends = row_sends,
                                     .pair_sends = pair_sends,
                                     .overflow = overflow});
  };
  const auto bytes = [](std::int64_t words) { return 4.0 * static_cast<double>(words); };
  table.add_bytes("expert_sends", shape, time_ms(stream, sends), bytes(3 * tokens * top_k + tokens * width + sent * (1 + 2 * there)));
  const auto rows = [&] {
    run(stream, kernels::ExpertRows{.num_experts = num_experts / ranks,
                                    .room = tokens * top_k * 5 / 4,
                                    .experts = sent_experts,
                                    .offsets = offsets,
                                    .pair_row = slot_row,
                                    .overflow = overflow});
  };
  table.add_bytes("expert_rows", shape, time_ms(stream, rows), bytes(2 * sent * there));
}

void body(Table& table) {
  measure(table, "16384 e64 k6 ep8", 16384, 64, 6, 8, 11616);
  measure(table, "16384 e256 k8 ep64", 16384, 256, 8, 64, 2464);
}

const RegisterBench registered{"expert_room", body};

}  // namespace
}  // namespace hadal::bench
