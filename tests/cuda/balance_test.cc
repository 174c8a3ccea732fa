// Guards: loads (exact) and balance losses with their gradients on the device, over shares of sequences with padding, several counts of
// sequences and devices; scores that are no numbers; the balancer's step.
#include <cmath>
#include <limits>

#include "kernels/bias_update.h"
#include "kernels/router.h"
#include "tests/cuda/twin.h"

namespace hadal::test {
namespace {

using kernels::RouterOptions;
using kernels::SequenceRows;

/// s and a choice of it, the same on both sides.
struct Routed {
  Twin scores, experts;

  Routed(std::int64_t tokens, std::int64_t num_experts, const RouterOptions& options, std::uint64_t seed, bool with_nan = false)
      : scores(Twin::zeros({tokens, num_experts}, DType::kF32)), experts(Twin::zeros({tokens, options.top_k}, DType::kI32)) {
    Twin logits = Twin::normal({tokens, num_experts}, DType::kF32, seed);
    Tensor s = Tensor::empty({tokens, num_experts}, DType::kF64), weights = Tensor::empty({tokens, options.top_k}, DType::kF64);
    Tensor chosen = Tensor::empty({tokens, options.top_k}, DType::kI32);
    Stream stream;
    run(stream, kernels::RouterForward{
                    .options = options, .logits = logits.host(), .bias = {}, .token = {}, .scores = s, .experts = chosen, .weights = weights});
    if (with_nan) s.as<double>()[0] = s.as<double>()[num_experts + 3] = std::nan("");
    scores = Twin(std::move(s), DType::kF32);
    experts = Twin(std::move(chosen), DType::kI32);
  }
};

struct Case {
  std::int64_t tokens, num_experts, num_devices;
  RouterOptions options;
  SequenceRows rows;
};

const Case kCases[] = {
    {12, 8, 4, {.top_k = 2, .num_groups = 4, .topk_groups = 2}, {.batch = 2, .seq = 6, .valid_seq = 5}},
    {7, 8, 2, {.top_k = 2}, {.batch = 3, .seq = 5, .valid_seq = 3, .row_begin = 4}},
    {1, 16, 2, {.top_k = 3}, {.batch = 1, .seq = 1, .valid_seq = 1}},
    {3, 8, 2, {.top_k = 2}, {.batch = 1, .seq = 9, .valid_seq = 5, .row_begin = 6}},
    {4099,
     64,
     8,
     {.score = RouterOptions::Score::kSoftmax, .top_k = 6, .num_groups = 8, .topk_groups = 3},
     {.batch = 1, .seq = 4099, .valid_seq = 4001}},
    {6000, 256, 8, {.top_k = 8, .num_groups = 8, .topk_groups = 4}, {.batch = 4, .seq = 2000, .valid_seq = 1990, .row_begin = 500}},
};

TEST(CudaBalanceCounts, EqualTheCpus) {
  std::uint64_t seed = 0;
  for (const Case& c : kCases) {
    for (const bool all : {false, true}) {
      SCOPED_TRACE(testing::Message() << c.tokens << " tokens, " << c.num_experts << " experts");
      Routed r(c.tokens, c.num_experts, c.options, ++seed);
      Twin counts = Twin::ints({c.num_experts}, std::vector<std::int64_t>(static_cast<std::size_t>(c.num_experts), 1000), DType::kI64);
      Twin chosen = Twin::output({c.rows.batch, c.num_experts}, DType::kI64), raw = Twin::output({c.rows.batch, c.num_experts}, DType::kI64),
           sent = Twin::output({c.rows.batch, c.num_devices}, DType::kI64);
      run_on_both({&r.scores, &r.experts}, {&counts, &chosen, &raw, &sent}, [&](Stream& stream, Side side) {
        run(stream, kernels::BalanceCounts{.options = c.options,
                                           .rows = c.rows,
                                           .scores = side(r.scores),
                                           .experts = side(r.experts),
                                           .counts = side(counts),
                                           .chosen = side(chosen),
                                           .raw_top_k = all ? side(raw) : View{},
                                           .sent = all ? side(sent) : View{}});
      });
      EXPECT_TRUE(counts.equal());
      EXPECT_TRUE(chosen.equal());
      EXPECT_TRUE(raw.equal());
      EXPECT_TRUE(sent.equal());
    }
  }
}

TEST(CudaBalanceCounts, NotANumberIsTheLowestScore) {
  const RouterOptions options{.top_k = 8};
  Routed r(2, 8, options, 3, true);
  RouterOptions fewer = options;
  for (const std::int64_t top_k : {3, 8}) {
    fewer.top_k = top_k;
    Twin counts = Twin::zeros({8}, DType::kI64), chosen = Twin::output({1, 8}, DType::kI64), raw = Twin::output({1, 8}, DType::kI64);
    Twin experts = Twin::ints({2, top_k}, std::vector<std::int64_t>(static_cast<std::size_t>(2 * top_k), 1));
    run_on_both({&r.scores, &experts}, {&counts, &chosen, &raw}, [&](Stream& stream, Side side) {
      run(stream, kernels::BalanceCounts{.options = fewer,
                                         .rows = {.batch = 1, .seq = 2, .valid_seq = 2},
                                         .scores = side(r.scores),
                                         .experts = side(experts),
                                         .counts = side(counts),
                                         .chosen = side(chosen),
                                         .raw_top_k = side(raw),
                                         .sent = {}});
    });
    EXPECT_TRUE(raw.equal());
    EXPECT_TRUE(counts.equal());
  }
}

TEST(CudaBalanceLoss, AgreesWithTheCpu) {
  struct Alphas {
    double sequence = 0, expert = 0, device = 0, communication = 0;
  };
  std::uint64_t seed = 50;
  for (const Case& c : kCases) {
    for (const Alphas& a : {Alphas{.sequence = 0.3}, Alphas{.expert = 0.4}, Alphas{.device = 0.2}, Alphas{0.3, 0.4, 0.2, 0.1}}) {
      SCOPED_TRACE(testing::Message() << c.tokens << " tokens, " << c.num_experts << " experts, alphas " << a.sequence << " " << a.expert);
      Routed r(c.tokens, c.num_experts, c.options, ++seed);
      Twin counts = Twin::zeros({c.num_experts}, DType::kI64);
      Twin chosen = Twin::zeros({c.rows.batch, c.num_experts}, DType::kI64), raw = Twin::zeros({c.rows.batch, c.num_experts}, DType::kI64),
           sent = Twin::zeros({c.rows.batch, c.num_devices}, DType::kI64);
      for (const bool device : {false, true}) {
        Stream stream = device ? stream_of(kGpu) : Stream();
        const Side side{device};
        run(stream, kernels::BalanceCounts{.options = c.options,
                                           .rows = c.rows,
                                           .scores = side(r.scores),
                                           .experts = side(r.experts),
                                           .counts = side(counts),
                                           .chosen = side(chosen),
                                           .raw_top_k = side(raw),
                                           .sent = side(sent)});
      }
      Tensor start = Tensor::empty({1}, DType::kF64);
      *start.as<double>() = 0.125;
      Twin loss(std::move(start), DType::kF64), d_scores = Twin::output({c.tokens, c.num_experts}, DType::kF32);
      run_on_both({&r.scores, &chosen, &raw, &sent}, {&loss, &d_scores}, [&](Stream& stream, Side side) {
        run(stream, kernels::BalanceLoss{.options = c.options,
                                         .rows = c.rows,
                                         .tokens = c.rows.valid_seq + 2,
                                         .sequence_alpha = a.sequence,
                                         .expert_alpha = a.expert,
                                         .device_alpha = a.device,
                                         .communication_alpha = a.communication,
                                         .scale = 0.5,
                                         .scores = side(r.scores),
                                         .chosen = side(chosen),
                                         .raw_top_k = side(raw),
                                         .sent = side(sent),
                                         .loss = side(loss),
                                         .d_scores = side(d_scores)});
      });
      EXPECT_TRUE(loss.agrees(1e-12));
      EXPECT_TRUE(d_scores.agrees(1e-6));
    }
  }
}

TEST(CudaBiasUpdate, TakesTheSignInIntegers) {
  for (const std::int64_t num_experts : {1, 3, 64, 300}) {
    Tensor start = Tensor::empty({num_experts}, DType::kF32);
    std::vector<std::int64_t> loads(static_cast<std::size_t>(num_experts));
    for (std::int64_t e = 0; e < num_experts; ++e) {
      start.as<float>()[e] = 0.1f * static_cast<float>(e % 7);
      loads[static_cast<std::size_t>(e)] = (std::int64_t{1} << 40) + (e * 5) % 3 - 1;  // some at, some around the mean, by one in 10^12
    }
    Stream gpu = stream_of(kGpu), cpu;
    Twin counts = Twin::ints({num_experts}, loads, DType::kI64);
    Tensor device = to_device(gpu, start, kGpu);
    for (int step = 0; step < 3; ++step) {
      run(cpu, kernels::BiasUpdate{.counts = counts.host(), .bias = start, .speed = 1e-3});
      run(gpu, kernels::BiasUpdate{.counts = counts.device(), .bias = device, .speed = 1e-3});
    }
    const Tensor got = to_host(gpu, device);
    EXPECT_TRUE(std::equal(got.span<float>().begin(), got.span<float>().end(), start.span<float>().begin())) << num_experts;
    Tensor norm = Tensor::empty({1}, DType::kF64);
    norm.as<double>()[0] = std::numeric_limits<double>::infinity();
    const Tensor infinite = to_device(gpu, norm, kGpu);
    run(gpu, kernels::BiasUpdate{.counts = counts.device(), .bias = device, .grad_norm_squared = infinite, .speed = 1e-3});
    const Tensor kept = to_host(gpu, device);
    EXPECT_TRUE(std::equal(kept.span<float>().begin(), kept.span<float>().end(), got.span<float>().begin())) << num_experts;
  }
}

}  // namespace
}  // namespace hadal::test
