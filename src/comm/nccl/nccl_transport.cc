#include "comm/nccl/nccl_transport.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "comm/host_process.h"
#include "core/copy.h"
#include "core/error.h"

namespace hadal::comm::nccl {
namespace {

/// Before NCCL's first call. What the user has set stays.
void set_environment() {
  // Sums in the network's switches have no fixed order.
  setenv("NCCL_NVLS_ENABLE", "0", 0);
  // The RAS service would listen on a port of the host.
  setenv("NCCL_RAS_ENABLE", "0", 0);
}

ncclDataType_t type_of(DType dtype) {
  switch (dtype) {
    case DType::kF64:
      return ncclFloat64;
    case DType::kF32:
      return ncclFloat32;
    default:
      HADAL_CHECK(dtype == DType::kI64, "sum over ranks of {}", name_of(dtype));
      return ncclInt64;
  }
}

ncclUniqueId new_id(const Place& place) {
  ncclUniqueId id;
  check(ncclGetUniqueId(&id), "ncclGetUniqueId", place);
  return id;
}

/// Of a group: made by its first rank.
ncclUniqueId shared_id(Transport& control, int rank, const Place& place) {
  ncclUniqueId id{};
  if (rank == 0) id = new_id(place);
  control.broadcast(std::as_writable_bytes(std::span(&id, 1)), 0);
  return id;
}

std::string name_and_version() {
  int code = 0;
  if (ncclGetVersion(&code) != ncclSuccess) return "nccl";
  return fmt::format("nccl {}.{}.{}", code / 10000, code / 100 % 100, code % 100);
}

const char* at(const void* data, std::size_t bytes) { return static_cast<const char*>(data) + bytes; }
char* at(void* data, std::size_t bytes) { return static_cast<char*>(data) + bytes; }

}  // namespace

NcclTransport::NcclTransport(Transport& control, const Group& group, int rank, Device device)
    : control_(control), staged_(control), group_(group), rank_(rank), device_(device) {
  set_environment();
  const Place place{group.name, device};
  check(cudaSetDevice(device.index), "cudaSetDevice", place);
  all_ = std::make_shared<Ring>(shared_id(control, rank, place), rank, static_cast<int>(group.world_ranks.size()), device, group.name);
}

std::string NcclTransport::description() const { return name_and_version(); }

std::unique_ptr<DeviceTransport> NcclTransport::subgroup(Transport& control, const Group& group, int rank) {
  return std::make_unique<NcclTransport>(control, group, rank, device_);
}

void NcclTransport::open_channels() {
  if (!channels_.empty()) return;
  const auto size = static_cast<int>(group_.world_ranks.size());
  const auto next = [size](int rank) { return (rank + 1) % size; };
  // Each rank makes the ids of the directions in which it sends: to the next and, unless that is the same rank, to the one before.
  std::vector<ncclUniqueId> mine{new_id(all_->place())};
  if (size > 2) mine.push_back(new_id(all_->place()));
  const std::vector<std::string> ids = control_.all_gather({reinterpret_cast<const char*>(mine.data()), mine.size() * sizeof(ncclUniqueId)});
  const auto open = [&](int from, int to) {
    if ((from != rank_ && to != rank_) || channels_.contains({from, to})) return;
    ncclUniqueId id;
    std::memcpy(&id, ids[static_cast<std::size_t>(from)].data() + (to == next(from) ? 0 : sizeof id), sizeof id);
    auto ring = std::make_shared<Ring>(id, from == rank_ ? 0 : 1, 2, device_, fmt::format("{}, {} to {}", group_.name, from, to));
    // The first message connects, for which both ranks must be there: here they are.
    Tensor byte = Tensor::zeros({1}, DType::kU8, device_);
    void* const data = byte.view().data;
    ring->begin("the first message", [&](ncclComm_t comm, cudaStream_t stream) {
      return from == rank_ ? ncclSend(data, 1, ncclUint8, 1, comm, stream) : ncclRecv(data, 1, ncclUint8, 0, comm, stream);
    })->wait();
    channels_.emplace(std::pair(from, to), std::move(ring));
  };
  // Neighbours meet pair by pair, the even ones with the next first; the pair that closes the ring comes last.
  for (const int parity : {0, 1}) {
    for (int rank = parity; rank + 1 < size; rank += 2) {
      open(rank, rank + 1);
      open(rank + 1, rank);
    }
  }
  open(size - 1, 0);
  open(0, size - 1);
}

Ring* NcclTransport::channel(int from, int to) {
  const auto found = channels_.find({from, to});
  return found == channels_.end() ? nullptr : found->second.get();
}

std::unique_ptr<Work> NcclTransport::begin_all_gather(ConstView mine, View all) {
  return all_->begin("ncclAllGather", [&](ncclComm_t comm, cudaStream_t stream) {
    return ncclAllGather(mine.data, all.data, mine.bytes(), ncclUint8, comm, stream);
  });
}

std::unique_ptr<Work> NcclTransport::begin_reduce_scatter_sum(ConstView all, View mine) {
  return all_->begin("ncclReduceScatter", [&](ncclComm_t comm, cudaStream_t stream) {
    return ncclReduceScatter(all.data, mine.data, static_cast<std::size_t>(mine.numel()), type_of(mine.dtype), ncclSum, comm, stream);
  });
}

std::unique_ptr<Work> NcclTransport::begin_all_to_all(ConstView send, std::span<const std::size_t> send_bytes, View recv,
                                                      std::span<const std::size_t> recv_bytes) {
  return all_->begin("an all-to-all", [&](ncclComm_t comm, cudaStream_t stream) {
    std::size_t from = 0, to = 0;
    ncclResult_t result = ncclGroupStart();
    for (std::size_t rank = 0; rank < send_bytes.size(); ++rank) {
      if (static_cast<int>(rank) == rank_) {
        if (send_bytes[rank] > 0) {
          check(cudaMemcpyAsync(at(recv.data, to), at(send.data, from), send_bytes[rank], cudaMemcpyDeviceToDevice, stream),
                "cudaMemcpyAsync", all_->place());
        }
      } else {
        const auto peer = static_cast<int>(rank);
        if (result == ncclSuccess && send_bytes[rank] > 0) {
          result = ncclSend(at(send.data, from), send_bytes[rank], ncclUint8, peer, comm, stream);
        }
        if (result == ncclSuccess && recv_bytes[rank] > 0) {
          result = ncclRecv(at(recv.data, to), recv_bytes[rank], ncclUint8, peer, comm, stream);
        }
      }
      from += send_bytes[rank];
      to += recv_bytes[rank];
    }
    const ncclResult_t ended = ncclGroupEnd();
    return result == ncclSuccess ? ended : result;
  });
}

std::unique_ptr<Work> NcclTransport::begin_send(ConstView values, int to, int tag) {
  Ring* const ring = channel(rank_, to);
  if (ring == nullptr) return staged_.begin_send(values, to, tag);
  return ring->begin("ncclSend", [&](ncclComm_t comm, cudaStream_t stream) {
    return ncclSend(values.data, values.bytes(), ncclUint8, 1, comm, stream);
  });
}

std::unique_ptr<Work> NcclTransport::begin_receive(View values, int from, int tag) {
  Ring* const ring = channel(from, rank_);
  if (ring == nullptr) return staged_.begin_receive(values, from, tag);
  return ring->begin("ncclRecv", [&](ncclComm_t comm, cudaStream_t stream) {
    return ncclRecv(values.data, values.bytes(), ncclUint8, 0, comm, stream);
  });
}

std::unique_ptr<Work> NcclTransport::begin_all_reduce_sum(View values) {
  return all_->begin("ncclAllReduce", [&](ncclComm_t comm, cudaStream_t stream) {
    return ncclAllReduce(values.data, values.data, static_cast<std::size_t>(values.numel()), type_of(values.dtype), ncclSum, comm, stream);
  });
}

void NcclTransport::broadcast(View values, int root) {
  all_->begin("ncclBroadcast", [&](ncclComm_t comm, cudaStream_t stream) {
    return ncclBroadcast(values.data, values.data, values.bytes(), ncclUint8, root, comm, stream);
  })->wait();
}

namespace {

std::string place_of(Device device) {
  // What NCCL itself compares: NCCL_HOSTID, where it is set, stands for the host.
  const char* const host = std::getenv("NCCL_HOSTID");
  std::array<char, 32> bus{};
  // A device that the runtime does not know has no place of its own: whoever asks keeps to the host.
  if (cudaDeviceGetPCIBusId(bus.data(), static_cast<int>(bus.size()), device.index) != cudaSuccess) return "";
  return fmt::format("{} {}", host != nullptr ? host : this_process().host, bus.data());
}

std::unique_ptr<DeviceTransport> make(Transport& control, const Group& group, int rank, Device device) {
  return std::make_unique<NcclTransport>(control, group, rank, device);
}

constexpr DeviceTransportBackend kBackend{name_and_version, place_of, make, failure_of_any};
const RegisterDeviceTransport registered(kBackend);

}  // namespace
}  // namespace hadal::comm::nccl
