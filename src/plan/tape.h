// A run of the code without tensors: what it would take from the allocator and give back, in the code's own order. The mirrors of
// plan/*_memory.cc are written on it like the layers they stand for, so that live and peak bytes come out as the allocator counts
// them.
#pragma once

#include <cstdint>
#include <utility>

#include "core/dtype.h"

namespace hadal::plan {

class Tape;

/// Stands for a Tensor. Movable; gives its bytes back on reset, destruction or assignment.
class Held {
 public:
  Held() = default;
  Held(Tape& tape, std::int64_t bytes) : tape_(&tape), bytes_(bytes) {}
  Held(Held&& other) noexcept : tape_(std::exchange(other.tape_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  Held& operator=(Held&& other) noexcept {
    if (this == &other) return *this;
    reset();
    tape_ = std::exchange(other.tape_, nullptr);
    bytes_ = std::exchange(other.bytes_, 0);
    return *this;
  }
  ~Held() { reset(); }

  void reset();
  bool defined() const { return tape_ != nullptr; }
  std::int64_t bytes() const { return bytes_; }

 private:
  Tape* tape_ = nullptr;
  std::int64_t bytes_ = 0;
};

class Tape {
 public:
  /// `compute`: weights and activations. `cpu_threads` > 0: with the scratch memory of the CPU's kernels, on so many threads.
  Tape(DType compute, int cpu_threads) : compute_(compute), cpu_threads_(cpu_threads) {}

  DType compute() const { return compute_; }
  int cpu_threads() const { return cpu_threads_; }

  Held take(std::int64_t numel, DType dtype);
  Held take(std::int64_t numel) { return take(numel, compute_); }
  /// Taken and given back at once.
  void touch(std::int64_t numel) { take(numel); }

  std::int64_t live() const { return live_; }
  std::int64_t peak() const { return peak_; }
  void reset_peak() { peak_ = live_; }

 private:
  friend class Held;

  DType compute_;
  int cpu_threads_;
  std::int64_t live_ = 0;
  std::int64_t peak_ = 0;
};

inline void Held::reset() {
  if (tape_ != nullptr) tape_->live_ -= bytes_;
  tape_ = nullptr;
  bytes_ = 0;
}

}  // namespace hadal::plan
