#include "data/edge_hash.h"

#include <algorithm>
#include <span>
#include <vector>

namespace hadal::data {

void hash_edges(Hasher& hasher, const File& file) {
  constexpr std::uint64_t kEdgeBytes = 1 << 20;
  const std::uint64_t size = file.size();
  hasher.update(std::as_bytes(std::span(&size, 1)));
  std::vector<std::byte> bytes(std::min(size, kEdgeBytes));
  for (const std::uint64_t offset : {std::uint64_t{0}, size - bytes.size()}) {
    file.read_at(offset, bytes);
    hasher.update(bytes);
  }
}

}  // namespace hadal::data
