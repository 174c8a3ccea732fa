// What the tests of NSA on CUDA share: heads inside wider buffers as twins, selected blocks as NsaSelect writes them.
#pragma once

#include <algorithm>

#include <fmt/core.h>

#include "core/rng.h"
#include "tests/cuda/twin.h"
#include "kernels/nsa.h"

namespace hadal::test {

/// Heads of `width` in rows of `heads` * (width + gap) elements; the gap comes before each head and must survive.
struct HeadsTwin {
  HeadsTwin(Twin values, std::int64_t num_heads, std::int64_t head_width, std::int64_t gap_width)
      : twin(std::move(values)), heads(num_heads), width(head_width), gap(gap_width) {}
  static HeadsTwin normal(std::int64_t tokens, std::int64_t heads, std::int64_t width, std::int64_t gap, DType dtype, std::uint64_t seed) {
    return {Twin::normal({tokens, heads * (width + gap)}, dtype, seed), heads, width, gap};
  }
  static HeadsTwin output(std::int64_t tokens, std::int64_t heads, std::int64_t width, std::int64_t gap, DType dtype) {
    return {Twin::output({tokens, heads * (width + gap)}, dtype), heads, width, gap};
  }
  /// Undefined where there is no width.
  kernels::Heads on(Side side) { return width == 0 ? kernels::Heads{} : kernels::heads_of(side(twin), heads, width + gap, gap, width); }

  Twin twin;
  std::int64_t heads, width, gap;
};

struct SelectedCase {
  std::int64_t batch, tokens, heads, key_heads, width, shared, value, groups, select, chosen;
  std::int64_t start = 0, gap = 0;
  std::int64_t keys() const { return start + tokens; }
};

/// What the CPU computed into a twin, as an input in `dtype`.
inline Twin from_host(Twin& computed, DType dtype) {
  Tensor host = Tensor::empty(computed.shape(), DType::kF64);
  std::ranges::copy(computed.host().span<double>(), host.span<double>().begin());
  return {std::move(host), dtype};
}

/// Ascending, the own block always in, padded with -1.
inline Twin random_blocks(const SelectedCase& c) {
  const Random random(31, RandomPurpose::kSynthetic);
  std::vector<std::int64_t> result;
  std::uint64_t draw = 0;
  for (std::int64_t row = 0; row < c.batch * c.tokens; ++row) {
    for (std::int64_t g = 0; g < c.groups; ++g) {
      const std::int64_t own = (c.start + row % c.tokens) / c.select;
      std::vector<std::int64_t> list{own};
      for (std::int64_t i = 1; i < c.chosen && static_cast<std::int64_t>(list.size()) <= own; ++i) {
        const auto block = static_cast<std::int64_t>(random.below(draw++, static_cast<std::uint64_t>(own + 1)));
        if (std::ranges::find(list, block) == list.end()) list.push_back(block);
      }
      std::ranges::sort(list);
      list.resize(static_cast<std::size_t>(c.chosen), -1);
      result.insert(result.end(), list.begin(), list.end());
    }
  }
  return Twin::ints({c.batch * c.tokens, c.groups, c.chosen}, result);
}

}  // namespace hadal::test
