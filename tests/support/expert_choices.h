// Choices of experts as a router or an earlier hop makes them: distinct in a row, some slots empty.
#pragma once

#include <cstdint>
#include <ostream>
#include <vector>

#include "core/tensor.h"

namespace hadal::test {

struct ExpertCase {
  std::int64_t rows = 0, slots = 1, num_experts = 1, num_places = 1, copies = 1;
  double empty = 0;   ///< share of slots without an expert
  bool skew = false;  ///< low experts are chosen more often
};

void PrintTo(const ExpertCase& of, std::ostream* out);

struct ExpertChoices {
  std::int64_t num_experts, num_places;
  Tensor experts;  ///< I32 [rows, slots]
  Tensor weights;  ///< F64 [rows, slots], values of f32
};

ExpertChoices make_choices(const ExpertCase& of);
/// Sizes from none to those of a large run.
std::vector<ExpertCase> expert_cases();

}  // namespace hadal::test
