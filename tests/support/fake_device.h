// A device that is none: "cuda:0" out of host memory, with work done at once. For the logic around devices, where there is no GPU.
#pragma once

#include "core/device.h"

namespace hadal::test {

/// While one lives, it stands in for the backend of this program.
class FakeDevice {
 public:
  FakeDevice();
  ~FakeDevice();
  FakeDevice(const FakeDevice&) = delete;
  FakeDevice& operator=(const FakeDevice&) = delete;

  static constexpr Device device{DeviceKind::kCuda, 0};
};

}  // namespace hadal::test
