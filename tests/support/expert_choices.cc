#include "tests/support/expert_choices.h"

#include <algorithm>

#include "core/rng.h"

namespace hadal::test {

void PrintTo(const ExpertCase& of, std::ostream* out) {
  *out << of.rows << " rows of " << of.slots << " slots, " << of.num_experts << " experts at " << of.num_places << " x " << of.copies;
}

ExpertChoices make_choices(const ExpertCase& of) {
  ExpertChoices c{of.num_experts, of.num_places, Tensor::empty({of.rows, of.slots}, DType::kI32), Tensor::empty({of.rows, of.slots}, DType::kF64)};
  const Random random(31, RandomPurpose::kSynthetic, static_cast<std::uint64_t>(of.rows));
  std::uint64_t draw = 0;
  for (std::int64_t row = 0; row < of.rows; ++row) {
    std::int32_t* const chosen = c.experts.as<std::int32_t>() + row * of.slots;
    for (std::int64_t k = 0; k < of.slots; ++k) {
      const double u = random.uniform(draw++);
      auto e = static_cast<std::int32_t>((of.skew ? u * u : u) * static_cast<double>(of.num_experts));
      while (std::find(chosen, chosen + k, e) != chosen + k) e = (e + 1) % static_cast<std::int32_t>(of.num_experts);
      chosen[k] = random.uniform(draw++) < of.empty ? -1 : e;
      c.weights.as<double>()[row * of.slots + k] = static_cast<float>(random.uniform(draw++));
    }
  }
  return c;
}

std::vector<ExpertCase> expert_cases() {
  return {{.rows = 0, .slots = 2, .num_experts = 4, .num_places = 2},
          {.rows = 1, .slots = 1, .num_experts = 1},
          {.rows = 7, .slots = 3, .num_experts = 8, .num_places = 2, .skew = true},
          {.rows = 33, .slots = 5, .num_experts = 16, .num_places = 4, .copies = 2},
          {.rows = 100, .slots = 6, .num_experts = 12, .num_places = 12, .empty = 0.3},
          {.rows = 517, .slots = 8, .num_experts = 64, .num_places = 8, .empty = 0.1, .skew = true},
          {.rows = 129, .slots = 32, .num_experts = 40, .num_places = 5, .copies = 3, .empty = 0.7},
          {.rows = 64, .slots = 4, .num_experts = 9, .num_places = 3, .empty = 1},
          {.rows = 8192, .slots = 8, .num_experts = 256, .num_places = 64},
          {.rows = 40000, .slots = 4, .num_experts = 512, .num_places = 2, .copies = 2, .empty = 0.2, .skew = true}};
}

}  // namespace hadal::test
