// One of several equal shares of a dim: the heads or channels of a tensor-parallel rank, the experts of an expert-parallel one.
#pragma once

#include <cstdint>

#include "core/error.h"

namespace hadal::nn {

struct Shard {
  std::int64_t index = 0;
  std::int64_t count = 1;

  bool whole() const { return count == 1; }
  /// Elements of this share of `total`, which `count` divides.
  std::int64_t size(std::int64_t total) const {
    HADAL_CHECK(total % count == 0, "{} in {} equal shares", total, count);
    return total / count;
  }
  /// Its first element.
  std::int64_t begin(std::int64_t total) const { return index * size(total); }
};

}  // namespace hadal::nn
