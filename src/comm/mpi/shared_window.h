// Sums over ranks of one host through memory that all of them map: two to five times as fast as MPI_Allreduce (spec/cpu.md 3).
//
// Each rank owns a slot of kBucketBytes in each of two sets. For a bucket: copy into the own slot; barrier; add the own segment
// over all slots in rank order into slot 0; barrier; copy slot 0 out. The sets alternate, so no third barrier is needed: who
// passes the first barrier of the next bucket knows that everybody has left this one.
#pragma once

#include <cstdint>
#include <memory>

#include "core/dtype.h"

namespace hadal::comm::mpi {

class SharedWindow {
 public:
  /// Collective over a communicator (MPI_Comm_c2f); nullptr on every rank unless all ranks share a host and the memory could be
  /// had.
  static std::unique_ptr<SharedWindow> create(int fortran_comm, int rank, int size);
  ~SharedWindow();
  SharedWindow(const SharedWindow&) = delete;
  SharedWindow& operator=(const SharedWindow&) = delete;

  /// values = sum over ranks, in place; f64, f32, i64.
  void sum_in_place(void* values, DType dtype, std::int64_t numel);
  /// Spins a short while, then yields the core.
  void barrier();

 private:
  struct Mapping;
  explicit SharedWindow(std::unique_ptr<Mapping> mapping);
  std::unique_ptr<Mapping> mapping_;
};

}  // namespace hadal::comm::mpi
