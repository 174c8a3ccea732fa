// A buffer per thread that only grows: working memory of kernels that run many times a step.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <new>

namespace hadal::kernels::cpu {

class Scratch {
 public:
  Scratch() = default;
  ~Scratch() { std::free(data_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  /// At least `count` elements, 64-byte aligned, contents undefined. The last pointer becomes invalid.
  template <class T>
  T* get(std::size_t count) {
    const std::size_t bytes = (count * sizeof(T) + 4095) / 4096 * 4096;
    if (bytes > bytes_) {
      std::free(data_);
      bytes_ = 0;
      data_ = std::aligned_alloc(4096, bytes);
      if (data_ == nullptr) throw std::bad_alloc();
      bytes_ = bytes;
    }
    return static_cast<T*>(data_);
  }

 private:
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace hadal::kernels::cpu
