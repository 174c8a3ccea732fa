#include "parallel/strided_group.h"

#include <vector>

namespace hadal::parallel {

std::unique_ptr<comm::Communicator> strided_group(comm::Communicator& group, int first, int step, int count, const char* name) {
  std::vector<int> ranks;
  for (int i = 0; i < count; ++i) ranks.push_back(first + i * step);
  return group.subgroup(ranks, name);
}

}  // namespace hadal::parallel
