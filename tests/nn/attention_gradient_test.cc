// Every attention layer's gradients, of its input and of every parameter, against differences in f64 with the selected blocks
// held.
#include <gtest/gtest.h>

#include "tests/nn/attention_reference.h"
#include "tests/support/gradient_check.h"

namespace hadal {
namespace {

struct Shape2 {
  std::int64_t batch, seq;
};

void check(const nn::AttentionOptions& options, Shape2 shape = {2, 11}) {
  test::AttentionCase attention(options);
  nn::Context ctx{attention.stream, shape.batch, shape.seq};
  Tensor x = test::normal_tensor({shape.batch * shape.seq, options.hidden_size}, 21);
  attention.layer->hold_selection(true);
  EXPECT_TRUE(test::layer_gradients_agree(*attention.layer, ctx, x));
}

nn::AttentionOptions sparse(nn::AttentionOptions options) {
  options.nsa = test::small_nsa();
  options.nsa->num_selected = 3;  // of 3 blocks in 11 tokens, all; of 6 in 23, half
  return options;
}

TEST(AttentionGradient, Mla) { check(test::small_mla()); }

TEST(AttentionGradient, MlaDirectQuery) {
  nn::AttentionOptions options = test::small_mla();
  options.q_lora_rank = 0;
  check(options);
}

TEST(AttentionGradient, Gqa) { check(test::small_gqa()); }

TEST(AttentionGradient, NsaMla) { check(sparse(test::small_mla())); }

TEST(AttentionGradient, NsaMlaUnselectedBlocks) { check(sparse(test::small_mla()), {1, 23}); }

TEST(AttentionGradient, NsaMlaTied) {
  nn::AttentionOptions options = sparse(test::small_mla());
  options.nsa->tie_up = true;
  options.q_lora_rank = 0;
  check(options);
}

TEST(AttentionGradient, NsaMlaGroups) {
  nn::AttentionOptions options = sparse(test::small_mla());
  options.nsa->num_select_groups = 2;
  check(options, {1, 23});
}

TEST(AttentionGradient, NsaMlaInLatent) {
  nn::AttentionOptions options = sparse(test::small_mla());
  options.latent_mode = nn::LatentMode::kMqa;
  check(options);
}

TEST(AttentionGradient, NsaMlaInLatentTiedGroups) {
  nn::AttentionOptions options = sparse(test::small_mla());
  options.latent_mode = nn::LatentMode::kMqa;
  options.nsa->tie_up = true;
  options.nsa->num_select_groups = 2;
  check(options, {1, 23});
}

TEST(AttentionGradient, NsaGqa) { check(sparse(test::small_gqa())); }

TEST(AttentionGradient, NsaGqaUnselectedBlocks) { check(sparse(test::small_gqa()), {1, 23}); }

// Shorter than one compression block: nothing is pooled, and the pooling's parameters get no gradient.
TEST(AttentionGradient, ShorterThanABlock) {
  check(sparse(test::small_mla()), {2, 3});
  check(sparse(test::small_gqa()), {2, 3});
  check(test::small_mla(), {3, 1});
}

}  // namespace
}  // namespace hadal
