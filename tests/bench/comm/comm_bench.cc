// Collectives against those of the MPI library, side by side in the same ranks:
//
//   launch/mpirun.sh -n 2 --threads 1 build/release/tests/bench/bench_comm
//
// One line per call and size: microseconds of both (best of several batches, the two in turns) and the ratio MPI / ours (above 1:
// ours is faster). f32; the size is what one rank brings. Ours add in rank order on every rank and keep the ledger.
#include <fmt/core.h>
#include <mpi.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <vector>

#include "comm/world.h"
#include "core/parallel_for.h"
#include "core/tensor.h"

namespace {

using hadal::Tensor;
using hadal::View;
using hadal::comm::Communicator;

/// Microseconds per call, of the slowest rank.
double time_of(Communicator& world, int calls, const std::function<void()>& call) {
  world.barrier();
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < calls; ++i) call();
  const std::chrono::duration<double, std::micro> spent = std::chrono::steady_clock::now() - begin;
  return static_cast<double>(world.all_reduce_max(static_cast<std::int64_t>(spent.count() * 1000))) / 1000 / calls;
}

void compare(Communicator& world, const char* name, std::int64_t bytes, const std::function<void()>& ours,
             const std::function<void()>& mpi) {
  constexpr int kBatches = 7;
  const int calls = static_cast<int>(std::clamp<std::int64_t>((std::int64_t{16} << 20) / bytes, 3, 300));
  double best_ours = 1e30;
  double best_mpi = 1e30;
  for (int batch = 0; batch < kBatches; ++batch) {
    best_ours = std::min(best_ours, time_of(world, calls, ours));
    best_mpi = std::min(best_mpi, time_of(world, calls, mpi));
  }
  if (world.is_root())
    fmt::print("{:<16} {:>8} {:>11.1f} {:>11.1f} {:>7.2f}\n", name, bytes, best_ours, best_mpi, best_mpi / best_ours);
}

/// Zeros: sums in place of sums do not grow.
View touched(Tensor& tensor) {
  tensor.fill_zero();
  return tensor.view();
}

void bench(Communicator& world, Communicator& group, std::int64_t bytes) {
  const std::int64_t numel = bytes / static_cast<std::int64_t>(sizeof(float));
  const int ranks = world.size();
  const std::int64_t part = numel / ranks;
  Tensor a = Tensor::empty({numel}, hadal::DType::kF32);
  Tensor b = Tensor::empty({numel}, hadal::DType::kF32);
  Tensor all = Tensor::empty({numel * ranks}, hadal::DType::kF32);
  const View va = touched(a);
  const View vb = touched(b);
  const View vall = touched(all);
  const int count = static_cast<int>(numel);
  const int share = static_cast<int>(part);
  compare(
      world, "all_reduce", bytes, [&] { group.all_reduce_sum(va); },
      [&] { MPI_Allreduce(MPI_IN_PLACE, va.data, count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD); });
  compare(
      world, "all_reduce begun", bytes, [&] { group.start_all_reduce_sum(va).wait(); },
      [&] { MPI_Allreduce(MPI_IN_PLACE, va.data, count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD); });
  compare(
      world, "reduce_scatter", bytes, [&] { group.reduce_scatter_sum(va.rows(0, part * ranks), vb.rows(0, part)); },
      [&] { MPI_Reduce_scatter_block(va.data, vb.data, share, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD); });
  compare(
      world, "all_gather", bytes, [&] { group.all_gather(va, vall); },
      [&] { MPI_Allgather(va.data, count, MPI_FLOAT, vall.data, count, MPI_FLOAT, MPI_COMM_WORLD); });
  const std::vector<std::int64_t> rows(static_cast<std::size_t>(ranks), part);
  compare(
      world, "all_to_all", bytes, [&] { group.all_to_all(va, rows, vb, rows); },
      [&] { MPI_Alltoall(va.data, share, MPI_FLOAT, vb.data, share, MPI_FLOAT, MPI_COMM_WORLD); });
  const int to = (world.rank() + 1) % ranks;
  const int from = (world.rank() + ranks - 1) % ranks;
  compare(
      world, "ring", bytes,
      [&] {
        hadal::comm::Handle received = group.start_receive(vb, from, 0);
        group.send(va, to, 0);
        received.wait();
      },
      [&] {
        MPI_Sendrecv(va.data, count, MPI_FLOAT, to, 0, vb.data, count, MPI_FLOAT, from, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
      });
}

}  // namespace

int main() {
  auto world = hadal::comm::init_from_environment();
  hadal::set_num_threads(1);
  if (world->size() < 2) {
    fmt::print(stderr, "bench_comm: needs ranks: launch/mpirun.sh -n 2 bench_comm\n");
    return hadal::comm::finish(std::move(world), 2);
  }
  {
    std::vector<int> members;
    for (int rank = 0; rank < world->size(); ++rank) members.push_back(rank);
    const auto group = world->subgroup(members, "bench");
    if (world->is_root()) {
      fmt::print("{} ranks, {}\n{:<16} {:>8} {:>11} {:>11} {:>7}\n", world->size(), world->description(), "call", "bytes",
                 "ours us", "MPI us", "ratio");
    }
    for (const std::int64_t bytes :
         {std::int64_t{4} << 10, std::int64_t{64} << 10, std::int64_t{1} << 20, std::int64_t{8} << 20}) {
      bench(*world, *group, bytes);
    }
  }
  return hadal::comm::finish(std::move(world), 0);
}
