// A run of the code without tensors: what it would take from the allocator and give back, in the code's own order. The mirrors of
// plan/*_memory.cc are written on it like the layers they stand for, so that live and peak bytes come out as the allocator counts
// them.
#pragma once

#include <cstdint>
#include <utility>

#include "core/dtype.h"

namespace hadal::plan {

class Tape;

/// Whose scratch memory is counted.
enum class Kernels { kNone, kCpu, kCuda };

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
  /// `compute`: weights and activations. With the scratch memory of `kernels`, the CPU's on `threads` threads.
  Tape(DType compute, Kernels kernels, int threads) : compute_(compute), kernels_(kernels), threads_(threads) {}

  DType compute() const { return compute_; }
  bool cpu() const { return kernels_ == Kernels::kCpu; }
  bool cuda() const { return kernels_ == Kernels::kCuda; }
  int threads() const { return threads_; }

  Held take(std::int64_t numel, DType dtype);
  Held take(std::int64_t numel) { return take(numel, compute_); }
  /// Statistics of rows, choices and weights of experts, losses: never below f32.
  Held take_sums(std::int64_t numel) { return take(numel, accumulation_dtype(compute_)); }
  /// Taken and given back at once.
  void touch(std::int64_t numel) { take(numel); }

  std::int64_t live() const { return live_; }
  std::int64_t peak() const { return peak_; }
  void reset_peak() { peak_ = live_; }

 private:
  friend class Held;

  DType compute_;
  Kernels kernels_;
  int threads_;
  std::int64_t live_ = 0;
  std::int64_t peak_ = 0;
};

inline void Held::reset() {
  if (tape_ != nullptr) tape_->live_ -= bytes_;
  tape_ = nullptr;
  bytes_ = 0;
}

}  // namespace hadal::plan
