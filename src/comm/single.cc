#include "comm/single.h"

#include "core/error.h"

namespace hadal::comm {

void SingleCommunicator::broadcast(std::span<std::byte>, int root) { HADAL_CHECK_EQ(root, 0); }

}  // namespace hadal::comm
