// The group of ranks that train together, behind one interface: `single` (one rank), `local` (threads of one process,
// for sanitizers and fault injection), `mpi` (ranks under mpirun or srun).
//
// Every call is collective: all ranks of the group make the same calls in the same order with the same dtype and numel.
// Determinism: a sum is ((x_0 + x_1) + x_2) + ... in rank order for each element, so every rank gets the same bits in
// every run, whatever the arrival of messages and the number of threads (design.md 3).
// Waiting ranks yield their core; a group may have more ranks than the machine has cores.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/tensor.h"

namespace hadal::comm {

class Communicator {
 public:
  virtual ~Communicator() = default;
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  bool is_root() const { return rank_ == 0; }
  /// "single", "local 4 threads", "mpi, shared memory": for doctor and the start-up line.
  virtual std::string description() const = 0;

  /// values = sum over ranks, in place; f64, f32 or i64.
  void all_reduce_sum(View values);
  /// The same for many tensors of any of these dtypes, packed into few messages: the gradients of a step.
  void all_reduce_sum(std::span<const View> values);
  /// Sum of one number per rank, in rank order.
  double all_reduce_sum(double value);
  std::int64_t all_reduce_sum(std::int64_t value);
  virtual std::int64_t all_reduce_max(std::int64_t value) = 0;

  /// The bytes of rank `root` on every rank; all pass the same number of bytes.
  void broadcast(View values, int root);
  virtual void broadcast(std::span<std::byte> bytes, int root) = 0;
  /// The string of rank `root` on every rank, of any length.
  void broadcast(std::string& text, int root);

  virtual void barrier() = 0;
  /// The bytes of all ranks, by rank; lengths may differ.
  virtual std::vector<std::string> all_gather(std::string_view bytes) = 0;

 protected:
  Communicator(int rank, int size);
  /// Elements of one dtype (f64, f32, i64), numel > 0, size() > 1.
  virtual void sum_in_place(void* values, DType dtype, std::int64_t numel) = 0;

 private:
  int rank_ = 0;
  int size_ = 1;
  std::vector<std::byte> packed_;
};

}  // namespace hadal::comm
