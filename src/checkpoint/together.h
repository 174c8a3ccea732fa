// A step that all ranks take and that may fail on any of them (a full disk, a damaged block): it succeeds on all or fails on all,
// with the same error, so that no rank goes on alone into a collective that the others never enter.
#pragma once

#include <functional>

#include "comm/communicator.h"

namespace hadal::checkpoint {

/// Runs `body` on every rank. When it threw a UserError, DamagedDataError, IoError or another Error of the outside world, or the
/// file system's or the allocator's exception, on any rank, every rank throws the error of the lowest of these ranks, of the same
/// kind. Bugs of ours (ContractError) pass at once. Collective.
void together(comm::Communicator& world, const std::function<void()>& body);

}  // namespace hadal::checkpoint
