#include "core/shape.h"

#include <algorithm>

#include "core/error.h"

namespace hadal {

Shape::Shape(std::initializer_list<std::int64_t> extents) { set({extents.begin(), extents.size()}); }

Shape::Shape(std::span<const std::int64_t> extents) { set(extents); }

void Shape::set(std::span<const std::int64_t> extents) {
  HADAL_CHECK(extents.size() <= kMaxRank, "a shape has at most {} dims, not {}", kMaxRank, extents.size());
  rank_ = static_cast<int>(extents.size());
  for (int dim = 0; dim < rank_; ++dim) {
    const std::int64_t extent = extents[static_cast<std::size_t>(dim)];
    HADAL_CHECK(extent >= 0, "dim {} has extent {}", dim, extent);
    HADAL_CHECK(!__builtin_mul_overflow(numel_, extent, &numel_), "the number of elements overflows");
    extents_[static_cast<std::size_t>(dim)] = extent;
  }
}

std::int64_t Shape::operator[](int dim) const {
  const int index = dim < 0 ? dim + rank_ : dim;
  HADAL_CHECK(index >= 0 && index < rank_, "dim {} of shape {}", dim, str());
  return extents_[static_cast<std::size_t>(index)];
}

bool Shape::operator==(const Shape& other) const { return std::ranges::equal(extents(), other.extents()); }

std::string Shape::str() const {
  std::string text = "[";
  for (int dim = 0; dim < rank_; ++dim) text += (dim ? ", " : "") + std::to_string(extents_[static_cast<std::size_t>(dim)]);
  return text + "]";
}

}  // namespace hadal
