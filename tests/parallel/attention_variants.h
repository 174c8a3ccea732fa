// Every kind of attention layer that a layout has to reproduce, by name.
#pragma once

#include <ostream>
#include <string>
#include <vector>

#include "tests/parallel/attention_layouts.h"

namespace hadal::test {

struct AttentionVariant {
  std::string name;
  nn::AttentionOptions options;

  friend void PrintTo(const AttentionVariant& variant, std::ostream* out) { *out << variant.name; }
};

inline std::vector<AttentionVariant> attention_variants() {
  const auto with = [](nn::AttentionOptions options, auto&& change) {
    change(options);
    return options;
  };
  return {
      {"mla", small_mla()},
      {"mla_direct_query", with(small_mla(), [](auto& o) { o.q_lora_rank = 0; })},
      {"gqa", many_gqa()},
      {"nsa_mla", sparse(small_mla())},
      {"nsa_mla_tied", with(sparse(small_mla()), [](auto& o) { o.nsa->tie_up = true; })},
      {"nsa_mla_two_groups", with(sparse(small_mla()), [](auto& o) { o.nsa->num_select_groups = 2; })},
      {"nsa_mla_four_groups", with(sparse(small_mla()), [](auto& o) { o.nsa->num_select_groups = 4; })},
      {"nsa_mla_in_latent", with(sparse(small_mla()), [](auto& o) { o.latent_mode = nn::LatentMode::kMqa; })},
      {"nsa_mla_in_latent_tied", with(sparse(small_mla()),
                                      [](auto& o) {
                                        o.latent_mode = nn::LatentMode::kMqa;
                                        o.nsa->tie_up = true;
                                        o.nsa->num_select_groups = 2;
                                        o.q_lora_rank = 0;
                                      })},
      {"nsa_gqa", sparse(many_gqa())},
  };
}

}  // namespace hadal::test
