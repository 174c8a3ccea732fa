// Members of a group at equal distances: the nodes and rails of experts' tokens.
#pragma once

#include <memory>

#include "comm/communicator.h"

namespace hadal::parallel {

/// The subgroup `name` of members first, first + step, ... (`count` of them). Collective over these members.
std::unique_ptr<comm::Communicator> strided_group(comm::Communicator& group, int first, int step, int count, const char* name);

}  // namespace hadal::parallel
