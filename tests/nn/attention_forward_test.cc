// Each attention layer against the plain f64 reference, over its options: names and row layouts of the weights, latent norms,
// rotation with YaRN, every sparse branch, the selection, the gate, batches, and sequences shorter than one block.
#include <gtest/gtest.h>

#include "core/parallel_for.h"
#include "tests/nn/attention_reference.h"
#include "tests/support/gradient_check.h"

namespace hadal {
namespace {

struct Variant {
  std::string name;
  nn::AttentionOptions options;
};

void PrintTo(const Variant& variant, std::ostream* out) { *out << variant.name; }

std::vector<Variant> variants() {
  std::vector<Variant> all;
  const auto add = [&](std::string name, const nn::AttentionOptions& base, auto&& change) {
    nn::AttentionOptions o = base;
    change(o);
    all.push_back({std::move(name), o});
  };
  const auto nothing = [](nn::AttentionOptions&) {};
  add("mla", test::small_mla(), nothing);
  add("mla_direct_query", test::small_mla(), [](auto& o) { o.q_lora_rank = 0; });
  add("mla_no_yarn", test::small_mla(), [](auto& o) { o.rope.yarn = {}; });
  add("gqa", test::small_gqa(), nothing);
  add("gqa_one_group", test::small_gqa(), [](auto& o) { o.num_kv_heads = 1; });
  nn::AttentionOptions mla = test::small_mla(), gqa = test::small_gqa();
  mla.nsa = gqa.nsa = test::small_nsa();
  add("nsa_mla", mla, nothing);
  add("nsa_mla_tied", mla, [](auto& o) { o.nsa->tie_up = true; });
  add("nsa_mla_two_groups", mla, [](auto& o) { o.nsa->num_select_groups = 2; });
  add("nsa_mla_group_per_head", mla, [](auto& o) { o.nsa->num_select_groups = 4; });
  add("nsa_mla_in_latent", mla, [](auto& o) { o.latent_mode = nn::LatentMode::kMqa; });
  add("nsa_mla_in_latent_tied", mla, [](auto& o) {
    o.latent_mode = nn::LatentMode::kMqa;
    o.nsa->tie_up = true;
    o.nsa->num_select_groups = 2;
    o.q_lora_rank = 0;
  });
  add("nsa_mla_long_select_block", mla, [](auto& o) { o.nsa->select_block = 8; });
  add("nsa_gqa", gqa, nothing);
  add("nsa_gqa_one_group", gqa, [](auto& o) { o.num_kv_heads = 1; });
  add("nsa_gqa_stride_is_length", gqa, [](auto& o) { o.nsa->block_stride = 4; });
  return all;
}

class AttentionForward : public ::testing::TestWithParam<Variant> {};

TEST_P(AttentionForward, EqualsTheReference) {
  test::AttentionCase attention(GetParam().options);
  for (const auto& [batch, seq] : {std::pair{2, 29}, std::pair{1, 3}, std::pair{3, 1}, std::pair{1, 150}}) {
    const Tensor x = test::normal_tensor({batch * seq, attention.options.hidden_size}, 5);
    const Tensor y = attention.forward(x, batch);
    const Tensor expected =
        test::reference_attention(attention.options, "model.layers.3.self_attn", attention.parameters, x, batch);
    EXPECT_LT(test::relative_difference(y, expected), 1e-13) << batch << " sequences of " << seq;
  }
}

TEST_P(AttentionForward, NoTokenSeesTheFuture) {
  test::AttentionCase attention(GetParam().options);
  const std::int64_t seq = 30, changed = 17;
  Tensor x = test::normal_tensor({seq, attention.options.hidden_size}, 6);
  const Tensor before = attention.forward(x);
  test::fill_normal(x.view().rows(changed, seq), 99, 3.0);
  const Tensor after = attention.forward(x);
  // Not bit for bit: neighbouring queries share tiles of selected keys, and the order of a sum may follow what later ones chose.
  EXPECT_LT(test::relative_difference(after.view().rows(0, changed), before.view().rows(0, changed)), 1e-15);
  EXPECT_GT(test::relative_difference(after.view().rows(changed, seq), before.view().rows(changed, seq)), 0.01);
}

TEST_P(AttentionForward, SingleStaysNearDouble) {
  nn::AttentionOptions options = GetParam().options;
  test::AttentionCase exact(options, 0.3);
  options.dtype = DType::kF32;
  test::AttentionCase single(options, 0.3);
  const Tensor x = test::normal_tensor({20, options.hidden_size}, 7),
               x32 = test::normal_tensor({20, options.hidden_size}, 7, 1.0, DType::kF32);
  const Tensor y = exact.forward(x, 2), y32 = single.forward(x32, 2);
  Tensor widened = Tensor::empty(y.shape(), DType::kF64);
  for (std::int64_t i = 0; i < y.numel(); ++i) widened.as<double>()[i] = static_cast<double>(y32.as<float>()[i]);
  EXPECT_LT(test::relative_difference(widened, y), 2e-5);
}

TEST_P(AttentionForward, BitsDoNotDependOnThreads) {
  test::AttentionCase attention(GetParam().options);
  const Tensor x = test::normal_tensor({46, attention.options.hidden_size}, 8),
               d_y = test::normal_tensor({46, attention.options.hidden_size}, 9);
  const auto run = [&](int threads) {
    set_num_threads(threads);
    for (nn::Parameter* p : attention.parameters) p->zero_grad();
    nn::Context ctx{attention.stream, 2, 23};
    nn::SavedPtr saved;
    std::vector<Tensor> results;
    results.push_back(attention.layer->forward(ctx, x, &saved));
    results.push_back(attention.layer->backward_input(ctx, d_y, *saved));
    attention.layer->backward_weight(ctx, *saved);
    for (nn::Parameter* p : attention.parameters) {
      Tensor copy = Tensor::empty(p->shape(), p->dtype());
      std::memcpy(copy.view().data, p->grad().data, copy.bytes());
      results.push_back(std::move(copy));
    }
    return results;
  };
  const int threads = num_threads();
  const auto one = run(1), four = run(4);
  set_num_threads(threads);
  for (std::size_t i = 0; i < one.size(); ++i)
    EXPECT_EQ(0, std::memcmp(one[i].view().data, four[i].view().data, one[i].bytes())) << i;
}

INSTANTIATE_TEST_SUITE_P(Variants, AttentionForward, ::testing::ValuesIn(variants()),
                         [](const auto& variant) { return variant.param.name; });

}  // namespace
}  // namespace hadal
