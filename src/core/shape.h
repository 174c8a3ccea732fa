// Shape of a contiguous row-major tensor: up to six extents, by value, no allocation.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

namespace hadal {

class Shape {
 public:
  static constexpr int kMaxRank = 6;

  Shape() = default;
  Shape(std::initializer_list<std::int64_t> extents);
  explicit Shape(std::span<const std::int64_t> extents);

  int rank() const { return rank_; }
  /// Extent of dim `dim`; negative counts from the end.
  std::int64_t operator[](int dim) const;
  /// Product of the extents; 1 for a scalar. Checked against overflow at construction.
  std::int64_t numel() const { return numel_; }
  std::span<const std::int64_t> extents() const { return {extents_.data(), static_cast<std::size_t>(rank_)}; }

  bool operator==(const Shape& other) const;
  /// "[4, 256]".
  std::string str() const;

 private:
  void set(std::span<const std::int64_t> extents);

  std::array<std::int64_t, kMaxRank> extents_{};
  int rank_ = 0;
  std::int64_t numel_ = 1;
};

}  // namespace hadal
