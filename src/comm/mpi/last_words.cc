#include "comm/mpi/last_words.h"

#include <mpi.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <thread>

namespace hadal::comm::mpi {
namespace {

constexpr auto kPatience = std::chrono::milliseconds(2000);
constexpr auto kPause = std::chrono::milliseconds(1);

MPI_Comm g_words = MPI_COMM_NULL;

/// Outlive a call that gave up: the library may still write there.
struct Buffers {
  std::array<std::uint64_t, 2> mine{};
  std::vector<std::uint64_t> all;
};

Buffers& buffers() {
  static Buffers instance;
  return instance;
}

}  // namespace

void open_last_words() { MPI_Comm_dup(MPI_COMM_WORLD, &g_words); }

int last_words_rank() {
  int rank = 0;
  MPI_Comm_rank(g_words, &rank);
  return rank;
}

std::optional<std::vector<LastWord>> exchange_last_words(const LastWord& mine) {
  int size = 0;
  MPI_Comm_size(g_words, &size);
  Buffers& words = buffers();
  words.mine = {mine.message, static_cast<std::uint64_t>(mine.exit_code)};
  words.all.resize(2 * static_cast<std::size_t>(size));
  MPI_Request request = MPI_REQUEST_NULL;
  MPI_Iallgather(words.mine.data(), 2, MPI_UINT64_T, words.all.data(), 2, MPI_UINT64_T, g_words, &request);
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  for (int done = 0; done == 0;) {
    MPI_Test(&request, &done, MPI_STATUS_IGNORE);
    if (done == 0 && std::chrono::steady_clock::now() > deadline) return std::nullopt;
    if (done == 0) std::this_thread::sleep_for(kPause);
  }
  std::vector<LastWord> said;
  for (std::size_t r = 0; r < static_cast<std::size_t>(size); ++r) {
    said.push_back({words.all[2 * r], static_cast<std::int64_t>(words.all[2 * r + 1])});
  }
  return said;
}

}  // namespace hadal::comm::mpi
