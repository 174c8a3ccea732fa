// Named stretches of a rank's work for a profiler's timeline (NVTX), through the device runtime; nothing where there is none.
#pragma once

#include "core/device_backend.h"

namespace hadal {

/// From here to the end of the scope; ranges of a thread nest. `name` is read at once.
class ProfileRange {
 public:
  explicit ProfileRange(const char* name) noexcept { begin_profile_range(name); }
  ~ProfileRange() { end_profile_range(); }
  ProfileRange(const ProfileRange&) = delete;
  ProfileRange& operator=(const ProfileRange&) = delete;
};

}  // namespace hadal
