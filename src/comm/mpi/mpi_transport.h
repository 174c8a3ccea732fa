// The transport between MPI ranks. Data moves by messages between pairs; sums are made by the receiver in rank order. Sums that
// are waited for at once go through a shared window where all ranks of the group share a host (shared_window.h).
#pragma once

#include <memory>

#include "comm/mpi/shared_window.h"
#include "comm/mpi/transfers.h"
#include "comm/transport.h"

namespace hadal::comm::mpi {

class MpiTransport final : public Transport {
 public:
  /// All ranks of MPI_COMM_WORLD.
  static std::unique_ptr<MpiTransport> world();
  ~MpiTransport() override;
  MpiTransport(const MpiTransport&) = delete;
  MpiTransport& operator=(const MpiTransport&) = delete;

  std::string description() const override;
  std::unique_ptr<Transport> subgroup(const Group& group, std::span<const int> members, int rank) override;
  std::unique_ptr<Work> begin_all_gather(std::span<const std::byte> mine, std::byte* all) override;
  std::unique_ptr<Work> begin_reduce_scatter_sum(const std::byte* all, std::byte* mine, DType dtype,
                                                 std::int64_t part_numel) override;
  std::unique_ptr<Work> begin_all_to_all(const std::byte* send, std::span<const std::size_t> send_bytes, std::byte* recv,
                                         std::span<const std::size_t> recv_bytes) override;
  std::unique_ptr<Work> begin_send(std::span<const std::byte> bytes, int to, int tag) override;
  std::unique_ptr<Work> begin_receive(std::span<std::byte> bytes, int from, int tag) override;
  std::unique_ptr<Work> begin_all_reduce_sum(std::byte* values, DType dtype, std::int64_t numel) override;
  void all_reduce_sum(std::byte* values, DType dtype, std::int64_t numel) override;
  std::int64_t all_reduce_max(std::int64_t value) override;
  void broadcast(std::span<std::byte> bytes, int root) override;
  void barrier() override;
  std::vector<std::string> all_gather(std::string_view bytes) override;

 private:
  /// `fortran_comm` belongs to this transport unless it is the world's.
  MpiTransport(int fortran_comm, int rank, int size, bool is_world);
  Transfers transfers() const { return Transfers(comm_); }
  /// The tag of a collective's stage: collectives that are under way at once have different ones.
  int next_tag();
  SharedWindow* window();

  int comm_;
  int rank_;
  int size_;
  bool is_world_;
  std::uint64_t sequence_ = 0;
  bool window_tried_ = false;
  std::unique_ptr<SharedWindow> window_;
};

}  // namespace hadal::comm::mpi
