// Where memory lives and work runs.
#pragma once

#include <cstdint>
#include <string>

namespace hadal {

enum class DeviceKind : std::uint8_t { kCpu, kCuda };

/// A device of this process: the CPU, or the CUDA device with a local index.
struct Device {
  DeviceKind kind = DeviceKind::kCpu;
  int index = 0;

  bool is_cpu() const { return kind == DeviceKind::kCpu; }
  bool operator==(const Device&) const = default;
};

inline constexpr Device kCpu{};

/// "cpu" or "cuda:1".
inline std::string name_of(Device device) {
  return device.is_cpu() ? std::string("cpu") : "cuda:" + std::to_string(device.index);
}

}  // namespace hadal
