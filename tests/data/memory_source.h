// Documents in memory, for tests of what reads any source.
#pragma once

#include <utility>
#include <vector>

#include "data/memory_source.h"

namespace hadal::test {

using data::MemorySource;

/// Documents whose tokens are all different from those of every other document, each ending in token 0 (eos). Token ids
/// start at 10.
inline std::vector<std::vector<std::int32_t>> distinct_documents(std::size_t count, std::size_t longest) {
  std::vector<std::vector<std::int32_t>> documents;
  std::int32_t next = 10;
  for (std::size_t i = 0; i < count; ++i) {
    std::vector<std::int32_t> document(1 + (i * 7919 + 3) % longest);
    for (std::int32_t& token : document) token = next++;
    document.push_back(0);
    documents.push_back(std::move(document));
  }
  return documents;
}

}  // namespace hadal::test
