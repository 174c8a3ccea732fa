// What spec/model.md 9.5 asks of sparse attention: gates that leave one branch give dense attention back, both forms agree, an
// even split of blocks selects by the compressed probabilities themselves, and the first rows are finite.
#include <gtest/gtest.h>

#include <cmath>

#include "nn/attention/nsa_branches.h"
#include "nn/attention/split_heads.h"
#include "tests/nn/attention_reference.h"
#include "tests/support/gradient_check.h"

namespace hadal {
namespace {

constexpr std::int64_t kSeq = 37;

/// Opens one branch's gates fully and shuts the others.
void open_only(test::AttentionCase& attention, nn::Branch branch) {
  const View weight = attention.parameter("nsa.gate.weight").value(), bias = attention.parameter("nsa.gate.bias").value();
  const std::int64_t heads = attention.options.num_heads;
  for (std::int64_t i = 0; i < weight.numel(); ++i) weight.as<double>()[i] = 0;
  for (std::int64_t i = 0; i < 3 * heads; ++i) bias.as<double>()[i] = i / heads == static_cast<std::int64_t>(branch) ? 1e3 : -1e3;
}

void copy_weight(const test::AttentionCase& from, const std::string& from_name, test::AttentionCase& to,
                 const std::string& to_name) {
  const ConstView source = from.parameter(from_name).value();
  const View target = to.parameter(to_name).value();
  ASSERT_EQ(source.bytes(), target.bytes());
  std::memcpy(target.data, source.data, source.bytes());
}

/// A dense layer with the weights of a sparse layer's branch; those of equal names are equal already.
Tensor dense_forward(const test::AttentionCase& sparse, const std::string& branch, ConstView x) {
  nn::AttentionOptions options = sparse.options;
  options.nsa.reset();
  test::AttentionCase dense(options);
  if (options.kind == nn::AttentionOptions::Kind::kGqa) {
    copy_weight(sparse, "nsa." + branch + ".k_proj.weight", dense, "k_proj.weight");
    copy_weight(sparse, "nsa." + branch + ".v_proj.weight", dense, "v_proj.weight");
  } else if (branch == "win" && !sparse.options.nsa->tie_up) {
    copy_weight(sparse, "nsa.win.kv_b_proj.weight", dense, "kv_b_proj.weight");
  }
  return dense.forward(x);
}

std::vector<nn::AttentionOptions> both_kinds() {
  nn::AttentionOptions mla = test::small_mla(), gqa = test::small_gqa();
  mla.nsa = gqa.nsa = test::small_nsa();
  return {mla, gqa};
}

TEST(SparseAttention, EverythingSelectedIsDense) {
  for (nn::AttentionOptions options : both_kinds()) {
    options.nsa->num_selected = (kSeq + 3) / 4;
    for (const bool tied : {true, false}) {
      options.nsa->tie_up = tied;
      for (const auto mode : {nn::LatentMode::kMha, nn::LatentMode::kMqa}) {
        options.latent_mode = mode;
        test::AttentionCase sparse(options);
        open_only(sparse, nn::kSelected);
        const Tensor x = test::normal_tensor({kSeq, options.hidden_size}, 4);
        const Tensor expected = dense_forward(sparse, "slc", x);
        EXPECT_LT(test::relative_difference(sparse.forward(x), expected), 1e-13);
      }
    }
  }
}

TEST(SparseAttention, WindowOverEverythingIsDense) {
  for (nn::AttentionOptions options : both_kinds()) {
    for (const bool tied : {true, false}) {
      options.nsa->tie_up = tied;
      options.nsa->window = kSeq;
      test::AttentionCase sparse(options);
      open_only(sparse, nn::kWindow);
      const Tensor x = test::normal_tensor({kSeq, options.hidden_size}, 4);
      const Tensor expected = dense_forward(sparse, "win", x);
      EXPECT_LT(test::relative_difference(sparse.forward(x), expected), 1e-13);
      // One token less is already another layer: the window is exact.
      options.nsa->window = kSeq - 1;
      test::AttentionCase narrower(options);
      open_only(narrower, nn::kWindow);
      const Tensor y = narrower.forward(x);
      EXPECT_LT(test::relative_difference(y.view().rows(0, kSeq - 1), expected.view().rows(0, kSeq - 1)), 1e-13);
      EXPECT_GT(test::relative_difference(y.view().rows(kSeq - 1, kSeq), expected.view().rows(kSeq - 1, kSeq)), 1e-6);
    }
  }
}

TEST(SparseAttention, BothFormsAgreeInSingle) {
  nn::AttentionOptions options = both_kinds()[0];
  options.dtype = DType::kF32;
  options.latent_mode = nn::LatentMode::kMha;
  test::AttentionCase mha(options, 0.2);
  options.latent_mode = nn::LatentMode::kMqa;
  test::AttentionCase mqa(options, 0.2);
  const Tensor x = test::normal_tensor({kSeq, options.hidden_size}, 4, 1.0, DType::kF32);
  EXPECT_LT(test::relative_difference(mqa.forward(x), mha.forward(x)), 1e-5);
}

// l = d = l': one compressed entry per selection block, so a block's importance is its probability.
TEST(SparseAttention, EvenBlocksAreSelectedByTheirProbability) {
  Stream stream;
  const std::int64_t block = 4, heads = 4, width = 6, count = 5, entries = kSeq / block;
  const nn::NsaOptions options{.block_length = block,
                               .block_stride = block,
                               .select_block = block,
                               .num_selected = count,
                               .window = 1,
                               .tie_up = false,
                               .num_select_groups = 2};
  const nn::NsaBranches branches(options, 1.3, 2);
  const Tensor q = test::normal_tensor({kSeq, heads * width}, 1), k = test::normal_tensor({entries, width}, 2);
  const nn::AttentionInput in{.q = nn::split_heads(q.view(), heads),
                              .k = nn::split_heads(k.view(), 1),
                              .k_shared = {},
                              .v = nn::split_heads(k.view(), 1)};
  Tensor o = Tensor::empty({kSeq, heads * width}, DType::kF64), lse = Tensor::empty({kSeq, heads}, DType::kF64);
  const nn::AttentionSpans spans = nn::one_span(kSeq, entries, 0);
  branches.compressed(stream, spans, in, nn::split_heads(o.view(), heads), lse);
  const Tensor blocks = branches.select(stream, spans, in, lse);
  ASSERT_EQ(blocks.shape(), Shape({kSeq, 2, count}));
  for (std::int64_t t = 0; t < kSeq; ++t) {
    for (std::int64_t group = 0; group < 2; ++group) {
      std::vector<std::pair<double, std::int64_t>> order;
      for (std::int64_t j = 0; j <= t / block; ++j) {
        double p = 0;
        for (std::int64_t h = 2 * group; h < 2 * group + 2; ++h) {
          double score = 0;
          for (std::int64_t i = 0; i < width && j < entries; ++i) {
            score += 1.3 * q.as<double>()[(t * heads + h) * width + i] * k.as<double>()[j * width + i];
          }
          if ((j + 1) * block - 1 <= t) p += std::exp(score - lse.as<double>()[t * heads + h]);
        }
        order.emplace_back(j == 0 || j >= t / block - 1 ? -10.0 : -p, j);
      }
      std::sort(order.begin(), order.end());
      order.resize(std::min<std::size_t>(order.size(), count));
      std::vector<std::int64_t> expected;
      for (const auto& [p, j] : order) expected.push_back(j);
      std::sort(expected.begin(), expected.end());
      expected.resize(count, -1);
      for (std::int64_t n = 0; n < count; ++n)
        EXPECT_EQ(blocks.as<std::int32_t>()[(t * 2 + group) * count + n], expected[static_cast<std::size_t>(n)]);
    }
  }
}

TEST(SparseAttention, FirstRowsAreFiniteAndCompressedIsZeroThere) {
  for (const nn::AttentionOptions& options : both_kinds()) {
    test::AttentionCase sparse(options);
    const Tensor x = test::normal_tensor({kSeq, options.hidden_size}, 4);
    const Tensor y = sparse.forward(x);
    for (const double value : y.span<double>()) EXPECT_TRUE(std::isfinite(value));
    open_only(sparse, nn::kCompressed);
    const Tensor compressed = sparse.forward(x);
    for (std::int64_t t = 0; t < kSeq; ++t) {
      double sum = 0;
      for (std::int64_t i = 0; i < options.hidden_size; ++i)
        sum += std::abs(compressed.as<double>()[t * options.hidden_size + i]);
      EXPECT_EQ(sum == 0, t < options.nsa->block_length - 1) << t;
    }
  }
}

// At step 0 the pooling is a mean: its weights and positions start at zero.
TEST(SparseAttention, InitialValuesAndDecay) {
  for (const nn::AttentionOptions& options : both_kinds()) {
    test::AttentionCase sparse(options);
    for (nn::Parameter* p : sparse.parameters) {
      p->initialize(1);
      const auto values = static_cast<ConstView>(p->value()).span<double>();
      const double first = values[0];
      const bool is_norm = p->name().find("norm") != std::string::npos;
      const bool is_pooling = p->name().find(".compress.") != std::string::npos || p->name().find(".phi_") != std::string::npos;
      const bool is_bias = p->name().ends_with("bias"), is_position = p->name().find("position") != std::string::npos;
      const bool starts_at_zero = is_pooling || is_bias;
      EXPECT_EQ(first == 1.0, is_norm) << p->name();
      EXPECT_EQ(first == 0.0, !is_norm && starts_at_zero) << p->name();
      EXPECT_EQ(p->options().decays, !is_norm && !is_bias && !is_position) << p->name();
    }
  }
}

TEST(SparseAttention, ImpossibleSizesAreRefused) {
  const auto refuses = [](auto&& change) {
    nn::AttentionOptions options = both_kinds()[0];
    change(options);
    EXPECT_THROW(nn::make_rope_table(options), UserError);
  };
  refuses([](auto& o) { o.nsa->block_stride = 3; });
  refuses([](auto& o) { o.nsa->select_block = 2; });
  refuses([](auto& o) { o.nsa->num_select_groups = 3; });
  refuses([](auto& o) { o.qk_rope_head_dim = 5; });
  refuses([](auto& o) { o.kv_lora_rank = 0; });
  refuses([](auto& o) {
    o = test::small_gqa();
    o.num_kv_heads = 3;
  });
}

}  // namespace
}  // namespace hadal
