#include "comm/mpi/shared_window.h"

#include <mpi.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstring>
#include <exception>
#include <new>
#include <vector>

#include "comm/mpi/engine.h"
#include "comm/ordered_sum.h"
#include "core/error.h"

namespace hadal::comm::mpi {
namespace {

/// Small enough that slots stay in the caches between copy, sum and copy.
constexpr std::size_t kBucketBytes = std::size_t{1} << 20;
constexpr int kSpins = 2000;

/// Start of the window, made by rank 0; the slots follow.
struct alignas(64) Header {
  alignas(64) std::atomic<std::uint32_t> arrived;
  alignas(64) std::atomic<std::uint32_t> generation;
};
static_assert(std::atomic<std::uint32_t>::is_always_lock_free);

/// What a rank put into its slot, checked by the others: a mismatch between ranks is a bug that must not end in wrong sums.
struct alignas(64) SlotHeader {
  std::int64_t numel = 0;
  DType dtype = DType::kU8;
};
constexpr std::size_t kSlotBytes = sizeof(SlotHeader) + kBucketBytes;

bool everybody(bool yes, MPI_Comm comm) {
  int all = yes ? 1 : 0;
  MPI_Allreduce(MPI_IN_PLACE, &all, 1, MPI_INT, MPI_MIN, comm);
  return all == 1;
}

}  // namespace

struct SharedWindow::Mapping {
  MPI_Comm host = MPI_COMM_NULL;
  MPI_Win window = MPI_WIN_NULL;
  std::byte* base = nullptr;
  int rank = 0;
  int size = 1;
  std::uint32_t set = 0;

  Header& header() const { return *std::launder(reinterpret_cast<Header*>(base)); }
  SlotHeader* slot(int of_rank) const {
    const std::size_t index = set * static_cast<std::size_t>(size) + static_cast<std::size_t>(of_rank);
    return reinterpret_cast<SlotHeader*>(base + sizeof(Header) + index * kSlotBytes);
  }
  std::byte* data(int of_rank) const { return reinterpret_cast<std::byte*>(slot(of_rank) + 1); }
};

std::unique_ptr<SharedWindow> SharedWindow::create(int fortran_comm, int rank, int size) {
  const MPI_Comm comm = MPI_Comm_f2c(fortran_comm);
  auto mapping = std::make_unique<Mapping>();
  mapping->rank = rank;
  mapping->size = size;
  MPI_Comm_split_type(comm, MPI_COMM_TYPE_SHARED, rank, MPI_INFO_NULL, &mapping->host);
  int host_size = 0;
  MPI_Comm_size(mapping->host, &host_size);
  if (!everybody(host_size == size, comm)) {
    MPI_Comm_free(&mapping->host);
    return nullptr;
  }
  MPI_Comm_set_errhandler(mapping->host, MPI_ERRORS_RETURN);
  const std::size_t bytes = rank == 0 ? sizeof(Header) + 2 * static_cast<std::size_t>(size) * kSlotBytes : 0;
  void* base = nullptr;
  const int failure =
      MPI_Win_allocate_shared(static_cast<MPI_Aint>(bytes), 1, MPI_INFO_NULL, mapping->host, &base, &mapping->window);
  if (!everybody(failure == MPI_SUCCESS, comm)) {
    if (failure == MPI_SUCCESS) MPI_Win_free(&mapping->window);
    MPI_Comm_free(&mapping->host);
    return nullptr;
  }
  MPI_Aint root_bytes = 0;
  int unit = 0;
  MPI_Win_shared_query(mapping->window, 0, &root_bytes, &unit, &base);
  mapping->base = static_cast<std::byte*>(base);
  if (rank == 0) new (mapping->base) Header{};
  MPI_Win_fence(0, mapping->window);
  MPI_Barrier(mapping->host);
  return std::unique_ptr<SharedWindow>(new SharedWindow(std::move(mapping)));
}

SharedWindow::SharedWindow(std::unique_ptr<Mapping> mapping) : mapping_(std::move(mapping)) {}

SharedWindow::~SharedWindow() {
  // Freeing is collective: a rank that leaves by an exception must not wait for the others, it ends the job (world.h).
  if (std::uncaught_exceptions() > 0) return;
  MPI_Win_free(&mapping_->window);
  MPI_Comm_free(&mapping_->host);
}

void SharedWindow::barrier() {
  Header& header = mapping_->header();
  const std::uint32_t mine = header.generation.load(std::memory_order_acquire);
  if (header.arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == static_cast<std::uint32_t>(mapping_->size)) {
    header.arrived.store(0, std::memory_order_relaxed);
    header.generation.fetch_add(1, std::memory_order_release);
    return;
  }
  for (int spin = 0; header.generation.load(std::memory_order_acquire) == mine; ++spin) {
    if (spin < kSpins) continue;
    // Others may wait for what this rank has under way beside this sum.
    engine().progress();
    sched_yield();
  }
}

void SharedWindow::sum_in_place(void* values, DType dtype, std::int64_t numel) {
  Mapping& m = *mapping_;
  const std::size_t element = size_of(dtype);
  const auto bucket = static_cast<std::int64_t>(kBucketBytes / element);
  std::vector<const void*> parts(static_cast<std::size_t>(m.size));
  for (std::int64_t done = 0; done < numel; done += bucket) {
    const std::int64_t count = std::min(bucket, numel - done);
    const std::size_t bytes = static_cast<std::size_t>(count) * element;
    std::byte* chunk = static_cast<std::byte*>(values) + static_cast<std::size_t>(done) * element;
    *m.slot(m.rank) = {numel, dtype};
    std::memcpy(m.data(m.rank), chunk, bytes);
    barrier();
    const Segment segment = segment_of(count, m.rank, m.size);
    const std::size_t offset = static_cast<std::size_t>(segment.begin) * element;
    for (int other = 0; other < m.size; ++other) {
      const SlotHeader& theirs = *m.slot(other);
      HADAL_CHECK(theirs.numel == numel && theirs.dtype == dtype,
                  "ranks disagree on a sum: {} x {} on rank {}, {} x {} on rank {}", numel, name_of(dtype), m.rank, theirs.numel,
                  name_of(theirs.dtype), other);
      parts[static_cast<std::size_t>(other)] = m.data(other) + offset;
    }
    ordered_sum(dtype, m.data(0) + offset, parts, segment.end - segment.begin);
    barrier();
    std::memcpy(chunk, m.data(0), bytes);
    m.set ^= 1u;
  }
}

}  // namespace hadal::comm::mpi
