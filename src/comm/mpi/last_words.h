// What ranks that end for an error tell each other: enough to know who else failed, and whether it was for the same reason. It has
// a communicator of its own, because the others may hold collectives that will never be completed. Called by comm/world.cc alone.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace hadal::comm::mpi {

struct LastWord {
  std::uint64_t message = 0;  ///< hash of the error's text
  std::int64_t exit_code = 0;
};

/// Collective, right after start().
void open_last_words();
/// This rank among those that opened.
int last_words_rank();

/// The words of all ranks, by rank, when every one of them calls this within about two seconds; else nothing, and then this rank may
/// only abort(): the exchange stays open.
std::optional<std::vector<LastWord>> exchange_last_words(const LastWord& mine);

}  // namespace hadal::comm::mpi
