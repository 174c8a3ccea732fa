// An ordered queue of work on one device. On the CPU, work runs before the call returns.
#pragma once

#include "core/device.h"

namespace hadal {

class Stream {
 public:
  /// `native` is the backend's own handle (a cudaStream_t), null on the CPU.
  explicit Stream(Device device = kCpu, void* native = nullptr) : device_(device), native_(native) {}

  Device device() const { return device_; }
  void* native() const { return native_; }

 private:
  Device device_;
  void* native_;
};

}  // namespace hadal
