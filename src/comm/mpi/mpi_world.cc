#include "comm/mpi/mpi_world.h"

#include <mpi.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <limits>
#include <numeric>
#include <string_view>

#include "comm/mpi/shared_window.h"
#include "comm/ordered_sum.h"
#include "core/error.h"

namespace hadal::comm::mpi {
namespace {

/// Buckets of the message path: larger ones make Open MPI allocate and fault pages at every call (spec/cpu.md 3).
constexpr std::size_t kBucketBytes = std::size_t{4} << 20;
constexpr std::size_t kBroadcastBytes = std::size_t{1} << 28;

bool g_running = false;

class MpiCommunicator final : public Communicator {
 public:
  MpiCommunicator(int rank, int size) : Communicator(rank, size) {
    const char* choice = std::getenv("HADAL_SHARED_WINDOW");
    const bool wanted = choice == nullptr || std::string_view(choice) != "0";
    if (wanted && size > 1) window_ = SharedWindow::create(rank, size);
  }
  using Communicator::broadcast;

  std::string description() const override { return window_ ? "mpi, one host, shared memory" : "mpi, messages"; }

  std::int64_t all_reduce_max(std::int64_t value) override {
    MPI_Allreduce(MPI_IN_PLACE, &value, 1, MPI_INT64_T, MPI_MAX, MPI_COMM_WORLD);
    return value;
  }

  void broadcast(std::span<std::byte> bytes, int root) override {
    HADAL_CHECK(root >= 0 && root < size(), "root {} of {} ranks", root, size());
    for (std::size_t at = 0; at < bytes.size(); at += kBroadcastBytes) {
      const std::size_t count = std::min(kBroadcastBytes, bytes.size() - at);
      MPI_Bcast(bytes.data() + at, static_cast<int>(count), MPI_BYTE, root, MPI_COMM_WORLD);
    }
  }

  void barrier() override { MPI_Barrier(MPI_COMM_WORLD); }

  std::vector<std::string> all_gather(std::string_view bytes) override {
    const auto ranks = static_cast<std::size_t>(size());
    std::vector<std::int64_t> lengths(ranks);
    const auto mine = static_cast<std::int64_t>(bytes.size());
    MPI_Allgather(&mine, 1, MPI_INT64_T, lengths.data(), 1, MPI_INT64_T, MPI_COMM_WORLD);
    const std::int64_t total = std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0});
    HADAL_CHECK(total <= std::numeric_limits<int>::max(), "all_gather of {} bytes", total);
    std::vector<int> counts(lengths.begin(), lengths.end());
    std::vector<int> offsets(ranks, 0);
    std::partial_sum(counts.begin(), counts.end() - 1, offsets.begin() + 1);
    std::string all(static_cast<std::size_t>(total), '\0');
    MPI_Allgatherv(bytes.data(), counts[static_cast<std::size_t>(rank())], MPI_BYTE, all.data(), counts.data(), offsets.data(),
                   MPI_BYTE, MPI_COMM_WORLD);
    std::vector<std::string> gathered;
    for (std::size_t r = 0; r < ranks; ++r) {
      gathered.push_back(all.substr(static_cast<std::size_t>(offsets[r]), static_cast<std::size_t>(counts[r])));
    }
    return gathered;
  }

 protected:
  void sum_in_place(void* values, DType dtype, std::int64_t numel) override {
    if (window_) {
      window_->sum_in_place(values, dtype, numel);
      return;
    }
    const std::size_t element = size_of(dtype);
    const auto bucket = static_cast<std::int64_t>(kBucketBytes / element);
    for (std::int64_t done = 0; done < numel; done += bucket) {
      sum_bucket(static_cast<std::byte*>(values) + static_cast<std::size_t>(done) * element, dtype,
                 std::min(bucket, numel - done));
    }
  }

 private:
  /// Segment r of every rank goes to rank r, is summed there in rank order, and the sums are gathered.
  void sum_bucket(std::byte* values, DType dtype, std::int64_t numel) {
    const auto ranks = static_cast<std::size_t>(size());
    const auto element = static_cast<std::int64_t>(size_of(dtype));
    std::vector<int> counts(ranks);
    std::vector<int> offsets(ranks);
    for (int r = 0; r < size(); ++r) {
      const Segment segment = segment_of(numel, r, size());
      counts[static_cast<std::size_t>(r)] = static_cast<int>((segment.end - segment.begin) * element);
      offsets[static_cast<std::size_t>(r)] = static_cast<int>(segment.begin * element);
    }
    const int mine = counts[static_cast<std::size_t>(rank())];
    const std::vector<int> equal(ranks, mine);
    std::vector<int> places(ranks, 0);
    for (std::size_t r = 1; r < ranks; ++r) places[r] = places[r - 1] + mine;
    received_.resize(std::max(received_.size(), ranks * static_cast<std::size_t>(mine)));
    MPI_Alltoallv(values, counts.data(), offsets.data(), MPI_BYTE, received_.data(), equal.data(), places.data(), MPI_BYTE,
                  MPI_COMM_WORLD);
    std::vector<const void*> parts(ranks);
    for (std::size_t r = 0; r < ranks; ++r) parts[r] = received_.data() + places[r];
    ordered_sum(dtype, received_.data(), parts, mine / element);
    MPI_Allgatherv(received_.data(), mine, MPI_BYTE, values, counts.data(), offsets.data(), MPI_BYTE, MPI_COMM_WORLD);
  }

  std::unique_ptr<SharedWindow> window_;
  std::vector<std::byte> received_;
};

}  // namespace

void start() {
  HADAL_CHECK(!g_running, "MPI is started once");
  int provided = 0;
  MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided);
  g_running = true;
  HADAL_CHECK(provided >= MPI_THREAD_FUNNELED, "this MPI library allows no threads beside the one that calls it");
}

bool running() { return g_running; }

int world_size() {
  int size = 1;
  if (g_running) MPI_Comm_size(MPI_COMM_WORLD, &size);
  return size;
}

std::unique_ptr<Communicator> make_world() {
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  return std::make_unique<MpiCommunicator>(rank, world_size());
}

void end() {
  g_running = false;
  MPI_Finalize();
}

void abort(int exit_code) {
  MPI_Abort(MPI_COMM_WORLD, exit_code);
  std::_Exit(exit_code);
}

std::string library_version() {
  std::array<char, MPI_MAX_LIBRARY_VERSION_STRING> text{};
  int length = 0;
  MPI_Get_library_version(text.data(), &length);
  return std::string(text.data(), static_cast<std::size_t>(length));
}

}  // namespace hadal::comm::mpi
