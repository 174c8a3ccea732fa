#include "comm/mpi/transfers.h"

#include <mpi.h>

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "core/error.h"

namespace hadal::comm::mpi {
namespace {

constexpr std::size_t kMessageBytes = std::size_t{64} << 20;

void check(int code, const char* call) {
  if (code == MPI_SUCCESS) return;
  std::array<char, MPI_MAX_ERROR_STRING> text{};
  int length = 0;
  MPI_Error_string(code, text.data(), &length);
  HADAL_CHECK(false, "{}: {}", call, std::string_view(text.data(), static_cast<std::size_t>(length)));
}

}  // namespace

struct Transfers::Requests {
  MPI_Comm comm = MPI_COMM_NULL;
  std::vector<MPI_Request> requests;
  std::vector<int> lengths;  ///< expected of a receive; -1: no receive
  std::vector<MPI_Status> statuses;

  MPI_Request* add(int length = -1) {
    lengths.push_back(length);
    return &requests.emplace_back(MPI_REQUEST_NULL);
  }
};

Transfers::Transfers(int fortran_comm) : requests_(std::make_unique<Requests>()) { requests_->comm = MPI_Comm_f2c(fortran_comm); }
Transfers::~Transfers() = default;
Transfers::Transfers(Transfers&&) noexcept = default;
Transfers& Transfers::operator=(Transfers&&) noexcept = default;

void Transfers::send(std::span<const std::byte> bytes, int to, int tag) {
  do {
    const std::span<const std::byte> piece = bytes.first(std::min(kMessageBytes, bytes.size()));
    check(MPI_Isend(piece.data(), static_cast<int>(piece.size()), MPI_BYTE, to, tag, requests_->comm, requests_->add()),
          "MPI_Isend");
    bytes = bytes.subspan(piece.size());
  } while (!bytes.empty());
}

void Transfers::receive(std::span<std::byte> bytes, int from, int tag) {
  do {
    const std::span<std::byte> piece = bytes.first(std::min(kMessageBytes, bytes.size()));
    const int length = static_cast<int>(piece.size());
    check(MPI_Irecv(piece.data(), length, MPI_BYTE, from, tag, requests_->comm, requests_->add(length)), "MPI_Irecv");
    bytes = bytes.subspan(piece.size());
  } while (!bytes.empty());
}

void Transfers::broadcast(std::span<std::byte> bytes, int root) {
  while (!bytes.empty()) {
    const std::span<std::byte> piece = bytes.first(std::min(kMessageBytes, bytes.size()));
    check(MPI_Ibcast(piece.data(), static_cast<int>(piece.size()), MPI_BYTE, root, requests_->comm, requests_->add()),
          "MPI_Ibcast");
    bytes = bytes.subspan(piece.size());
  }
}

void Transfers::barrier() { check(MPI_Ibarrier(requests_->comm, requests_->add()), "MPI_Ibarrier"); }

void Transfers::all_reduce_max(std::int64_t& value) {
  check(MPI_Iallreduce(MPI_IN_PLACE, &value, 1, MPI_INT64_T, MPI_MAX, requests_->comm, requests_->add()), "MPI_Iallreduce");
}

void Transfers::all_gather(const void* mine, void* all, int length) {
  check(MPI_Iallgather(mine, length, MPI_BYTE, all, length, MPI_BYTE, requests_->comm, requests_->add()), "MPI_Iallgather");
}

void Transfers::all_gather(std::span<const std::byte> mine, std::byte* all, std::span<const int> lengths,
                           std::span<const int> offsets) {
  check(MPI_Iallgatherv(mine.data(), static_cast<int>(mine.size()), MPI_BYTE, all, lengths.data(), offsets.data(), MPI_BYTE,
                        requests_->comm, requests_->add()),
        "MPI_Iallgatherv");
}

bool Transfers::done() {
  Requests& r = *requests_;
  if (r.requests.empty()) return true;
  int all = 0;
  r.statuses.resize(r.requests.size());
  const int code = MPI_Testall(static_cast<int>(r.requests.size()), r.requests.data(), &all, r.statuses.data());
  if (code == MPI_ERR_IN_STATUS) {
    // One message was longer than its receiver expects (or the transport broke): the status says which.
    for (const MPI_Status& status : r.statuses) {
      if (status.MPI_ERROR != MPI_ERR_PENDING) check(status.MPI_ERROR, "a message between ranks");
    }
  }
  check(code, "MPI_Testall");
  if (all == 0) return false;
  for (std::size_t i = 0; i < r.requests.size(); ++i) {
    if (r.lengths[i] < 0) continue;
    int received = 0;
    MPI_Get_count(&r.statuses[i], MPI_BYTE, &received);
    HADAL_CHECK(received == r.lengths[i], "a message of {} bytes is expected from rank {}, which sends {}", r.lengths[i],
                r.statuses[i].MPI_SOURCE, received);
  }
  r.requests.clear();
  r.lengths.clear();
  return true;
}

namespace {

class Staged final : public Operation {
 public:
  Staged(Transfers transfers, NextStage next) : transfers_(std::move(transfers)), next_(std::move(next)) {}

  bool advance() override {
    while (transfers_.done()) {
      if (!next_) return true;
      std::optional<Transfers> more = next_();
      if (!more) return true;
      transfers_ = std::move(*more);
    }
    return false;
  }

 private:
  Transfers transfers_;
  NextStage next_;
};

class StagedWork final : public Work {
 public:
  explicit StagedWork(std::shared_ptr<Staged> operation) : operation_(std::move(operation)) { engine().add(operation_); }
  void wait() override { engine().wait(*operation_); }
  void abandon() override { engine().abandon(*operation_); }

 private:
  std::shared_ptr<Staged> operation_;
};

}  // namespace

std::unique_ptr<Work> start_transfers(Transfers transfers, NextStage next) {
  return std::make_unique<StagedWork>(std::make_shared<Staged>(std::move(transfers), std::move(next)));
}

}  // namespace hadal::comm::mpi
