// XXH3-128: the one hash of Hadal's files (spec/cli.md).
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace hadal {

struct Hash128 {
  std::uint64_t low = 0;
  std::uint64_t high = 0;
  auto operator<=>(const Hash128&) const = default;
  /// 32 hex digits, high half first (xxhsum's form).
  std::string hex() const;
};

Hash128 hash128(std::span<const std::byte> bytes);

/// Streaming form; the digest equals hash128 of the concatenation.
class Hasher {
 public:
  Hasher();
  ~Hasher();
  Hasher(Hasher&&) noexcept;
  Hasher& operator=(Hasher&&) noexcept;
  void update(std::span<const std::byte> bytes);
  Hash128 digest() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace hadal
