// Ranks as threads of one process: the same collectives as under MPI, visible to AddressSanitizer and ThreadSanitizer.
#pragma once

#include <functional>

#include "comm/communicator.h"

namespace hadal::comm {

/// Runs body(communicator) on `size` threads, rank r in thread r; returns when all have ended. A rank that throws ends the
/// others at their next collective; the exception of the first that failed is rethrown.
/// The ranks share the process: while the group runs, parallel_for has one thread (each rank loops on its own).
void run_local_group(int size, const std::function<void(Communicator&)>& body);

}  // namespace hadal::comm
