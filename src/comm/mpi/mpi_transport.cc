#include "comm/mpi/mpi_transport.h"

#include <mpi.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <limits>
#include <numeric>
#include <string_view>

#include "comm/ordered_sum.h"
#include "core/error.h"
#include "core/tensor.h"

namespace hadal::comm::mpi {
namespace {

/// Of a blocking sum by messages.
constexpr std::size_t kBucketBytes = std::size_t{4} << 20;
/// Two tags for each collective under way, one for meeting before a group is made, then those of send and receive. MPI promises
/// tags up to 32767 alone; all libraries allow far more, and MPI_Isend refuses what they do not.
constexpr std::uint64_t kCollectivesUnderWay = 1 << 14;
constexpr int kMeetingTag = 2 << 14;
constexpr int kFirstMessageTag = kMeetingTag + 1;

bool windows_wanted() {
  const char* choice = std::getenv("HADAL_SHARED_WINDOW");
  return choice == nullptr || std::string_view(choice) != "0";
}

/// Receive space out of the caching allocator: fresh pages at every call cost more than the transfer (spec/cpu.md 3).
std::shared_ptr<Tensor> scratch(std::size_t bytes) {
  return std::make_shared<Tensor>(Tensor::empty({static_cast<std::int64_t>(bytes)}, DType::kU8));
}

std::byte* bytes_of(Tensor& tensor) { return static_cast<std::byte*>(tensor.view().data); }

}  // namespace

std::unique_ptr<MpiTransport> MpiTransport::world() {
  int rank = 0;
  int size = 1;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  std::unique_ptr<MpiTransport> transport(new MpiTransport(MPI_Comm_c2f(MPI_COMM_WORLD), rank, size, true));
  transport->window();
  return transport;
}

MpiTransport::MpiTransport(int fortran_comm, int rank, int size, bool is_world)
    : comm_(fortran_comm), rank_(rank), size_(size), is_world_(is_world) {}

MpiTransport::~MpiTransport() {
  // Collective: a rank that leaves by an exception must not wait for the others, it ends the job (world.h).
  if (std::uncaught_exceptions() > 0) return;
  window_.reset();
  if (is_world_) return;
  MPI_Comm comm = MPI_Comm_f2c(comm_);
  MPI_Comm_free(&comm);
}

std::string MpiTransport::description() const { return window_ ? "mpi, one host, shared memory" : "mpi, messages"; }

std::unique_ptr<Transport> MpiTransport::subgroup(const Group& group, std::span<const int> members, int rank) {
  // Creation waits inside MPI, where nothing else of ours moves on: the members meet first.
  Transfers meeting = transfers();
  for (const int member : members) {
    if (member == rank_) continue;
    meeting.receive({}, member, kMeetingTag);
    meeting.send({}, member, kMeetingTag);
  }
  start_transfers(std::move(meeting))->wait();
  const MPI_Comm parent = MPI_Comm_f2c(comm_);
  MPI_Group all = MPI_GROUP_NULL;
  MPI_Group some = MPI_GROUP_NULL;
  MPI_Comm comm = MPI_COMM_NULL;
  MPI_Comm_group(parent, &all);
  MPI_Group_incl(all, static_cast<int>(members.size()), members.data(), &some);
  const int code = MPI_Comm_create_group(parent, some, 0, &comm);
  MPI_Group_free(&some);
  MPI_Group_free(&all);
  HADAL_CHECK(code == MPI_SUCCESS && comm != MPI_COMM_NULL, "MPI_Comm_create_group for \"{}\" of {} ranks", group.name,
              members.size());
  MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN);
  return std::unique_ptr<Transport>(new MpiTransport(MPI_Comm_c2f(comm), rank, static_cast<int>(members.size()), false));
}

int MpiTransport::next_tag() { return static_cast<int>(sequence_++ % kCollectivesUnderWay) * 2; }

SharedWindow* MpiTransport::window() {
  if (!window_tried_) {
    window_tried_ = true;
    if (windows_wanted() && size_ > 1) {
      barrier();  // as in subgroup()
      window_ = SharedWindow::create(comm_, rank_, size_);
    }
  }
  return window_.get();
}

std::unique_ptr<Work> MpiTransport::begin_all_gather(std::span<const std::byte> mine, std::byte* all) {
  const int tag = next_tag();
  Transfers moves = transfers();
  const auto part = [&](int rank) { return std::span(all + static_cast<std::size_t>(rank) * mine.size(), mine.size()); };
  for (int step = 1; step < size_; ++step)
    moves.receive(part((rank_ + size_ - step) % size_), (rank_ + size_ - step) % size_, tag);
  for (int step = 1; step < size_; ++step) moves.send(mine, (rank_ + step) % size_, tag);
  if (part(rank_).data() != mine.data()) std::memmove(part(rank_).data(), mine.data(), mine.size());
  return start_transfers(std::move(moves));
}

std::unique_ptr<Work> MpiTransport::begin_reduce_scatter_sum(const std::byte* all, std::byte* mine, DType dtype,
                                                             std::int64_t part_numel) {
  const int tag = next_tag();
  const std::size_t part = static_cast<std::size_t>(part_numel) * size_of(dtype);
  Transfers moves = transfers();
  const std::shared_ptr<Tensor> received = scratch(part * static_cast<std::size_t>(size_ - 1));
  std::vector<const void*> parts(static_cast<std::size_t>(size_));
  std::byte* next = bytes_of(*received);
  for (int rank = 0; rank < size_; ++rank) {
    parts[static_cast<std::size_t>(rank)] = rank == rank_ ? all + static_cast<std::size_t>(rank) * part : next;
    if (rank == rank_) continue;
    moves.receive({next, part}, rank, tag);
    next += part;
  }
  for (int step = 1; step < size_; ++step) {
    const int to = (rank_ + step) % size_;
    moves.send({all + static_cast<std::size_t>(to) * part, part}, to, tag);
  }
  return start_transfers(std::move(moves), [received, parts, mine, dtype, part_numel, part]() -> std::optional<Transfers> {
    // `mine` may be this rank's part of `all`, which is not the first one: then it is summed aside.
    const bool aside = std::ranges::find(parts.begin() + 1, parts.end(), mine) != parts.end();
    const std::shared_ptr<Tensor> sum = aside ? scratch(part) : nullptr;
    ordered_sum(dtype, aside ? bytes_of(*sum) : mine, parts, part_numel);
    if (aside) std::memcpy(mine, bytes_of(*sum), part);
    return std::nullopt;
  });
}

std::unique_ptr<Work> MpiTransport::begin_all_to_all(const std::byte* send, std::span<const std::size_t> send_bytes,
                                                     std::byte* recv, std::span<const std::size_t> recv_bytes) {
  const int tag = next_tag();
  Transfers moves = transfers();
  std::vector<std::size_t> from(send_bytes.size(), 0);
  std::vector<std::size_t> to(recv_bytes.size(), 0);
  std::partial_sum(send_bytes.begin(), send_bytes.end() - 1, from.begin() + 1);
  std::partial_sum(recv_bytes.begin(), recv_bytes.end() - 1, to.begin() + 1);
  for (int step = 1; step < size_; ++step) {
    const auto rank = static_cast<std::size_t>((rank_ + size_ - step) % size_);
    moves.receive({recv + to[rank], recv_bytes[rank]}, static_cast<int>(rank), tag);
  }
  for (int step = 1; step < size_; ++step) {
    const auto rank = static_cast<std::size_t>((rank_ + step) % size_);
    moves.send({send + from[rank], send_bytes[rank]}, static_cast<int>(rank), tag);
  }
  const auto self = static_cast<std::size_t>(rank_);
  if (send_bytes[self] > 0) std::memcpy(recv + to[self], send + from[self], send_bytes[self]);
  return start_transfers(std::move(moves));
}

std::unique_ptr<Work> MpiTransport::begin_send(std::span<const std::byte> bytes, int to, int tag) {
  Transfers moves = transfers();
  moves.send(bytes, to, kFirstMessageTag + tag);
  return start_transfers(std::move(moves));
}

std::unique_ptr<Work> MpiTransport::begin_receive(std::span<std::byte> bytes, int from, int tag) {
  Transfers moves = transfers();
  moves.receive(bytes, from, kFirstMessageTag + tag);
  return start_transfers(std::move(moves));
}

std::unique_ptr<Work> MpiTransport::begin_all_reduce_sum(std::byte* values, DType dtype, std::int64_t numel) {
  // Segment r of every rank goes to rank r, is summed there in rank order, and the sums are handed to all.
  const int tag = next_tag();
  const std::size_t element = size_of(dtype);
  const auto segment = [=, ranks = size_](int rank) {
    const Segment range = segment_of(numel, rank, ranks);
    return std::span(values + static_cast<std::size_t>(range.begin) * element,
                     static_cast<std::size_t>(range.end - range.begin) * element);
  };
  const std::span<std::byte> mine = segment(rank_);
  Transfers moves = transfers();
  const std::shared_ptr<Tensor> received = scratch(mine.size() * static_cast<std::size_t>(size_));
  std::vector<const void*> parts(static_cast<std::size_t>(size_));
  for (int rank = 0; rank < size_; ++rank) {
    const std::span<std::byte> place(bytes_of(*received) + static_cast<std::size_t>(rank) * mine.size(), mine.size());
    parts[static_cast<std::size_t>(rank)] = place.data();
    if (rank != rank_) moves.receive(place, rank, tag);
  }
  for (int step = 1; step < size_; ++step) moves.send(segment((rank_ + step) % size_), (rank_ + step) % size_, tag);
  auto hand_out = [this, tag, segment, mine, received, parts, dtype, element,
                   summed = false]() mutable -> std::optional<Transfers> {
    if (summed) return std::nullopt;
    summed = true;
    if (!mine.empty()) std::memcpy(bytes_of(*received) + static_cast<std::size_t>(rank_) * mine.size(), mine.data(), mine.size());
    ordered_sum(dtype, mine.data(), parts, static_cast<std::int64_t>(mine.size() / element));
    Transfers sums = transfers();
    for (int step = 1; step < size_; ++step) {
      const int from = (rank_ + size_ - step) % size_;
      sums.receive(segment(from), from, tag + 1);
    }
    for (int step = 1; step < size_; ++step) sums.send(mine, (rank_ + step) % size_, tag + 1);
    return sums;
  };
  return start_transfers(std::move(moves), std::move(hand_out));
}

void MpiTransport::all_reduce_sum(std::byte* values, DType dtype, std::int64_t numel) {
  if (SharedWindow* shared = window()) {
    shared->sum_in_place(values, dtype, numel);
    return;
  }
  const std::size_t element = size_of(dtype);
  const auto bucket = static_cast<std::int64_t>(kBucketBytes / element);
  for (std::int64_t done = 0; done < numel; done += bucket) {
    begin_all_reduce_sum(values + static_cast<std::size_t>(done) * element, dtype, std::min(bucket, numel - done))->wait();
  }
}

std::int64_t MpiTransport::all_reduce_max(std::int64_t value) {
  Transfers moves = transfers();
  moves.all_reduce_max(value);
  start_transfers(std::move(moves))->wait();
  return value;
}

void MpiTransport::broadcast(std::span<std::byte> bytes, int root) {
  Transfers moves = transfers();
  moves.broadcast(bytes, root);
  start_transfers(std::move(moves))->wait();
}

void MpiTransport::barrier() {
  Transfers moves = transfers();
  moves.barrier();
  start_transfers(std::move(moves))->wait();
}

std::vector<std::string> MpiTransport::all_gather(std::string_view bytes) {
  const auto ranks = static_cast<std::size_t>(size_);
  std::vector<std::int64_t> sizes(ranks);
  const auto mine = static_cast<std::int64_t>(bytes.size());
  Transfers moves = transfers();
  moves.all_gather(&mine, sizes.data(), sizeof mine);
  start_transfers(std::move(moves))->wait();
  const std::int64_t total = std::accumulate(sizes.begin(), sizes.end(), std::int64_t{0});
  HADAL_CHECK(total <= std::numeric_limits<int>::max(), "all_gather of {} bytes", total);
  const std::vector<int> lengths(sizes.begin(), sizes.end());
  std::vector<int> offsets(ranks, 0);
  std::partial_sum(lengths.begin(), lengths.end() - 1, offsets.begin() + 1);
  std::string all(static_cast<std::size_t>(total), '\0');
  Transfers texts = transfers();
  texts.all_gather(std::as_bytes(std::span(bytes)), reinterpret_cast<std::byte*>(all.data()), lengths, offsets);
  start_transfers(std::move(texts))->wait();
  std::vector<std::string> gathered;
  for (std::size_t r = 0; r < ranks; ++r) {
    gathered.push_back(all.substr(static_cast<std::size_t>(offsets[r]), static_cast<std::size_t>(lengths[r])));
  }
  return gathered;
}

}  // namespace hadal::comm::mpi
