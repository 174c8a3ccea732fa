// How an op finds its implementation: one slot per argument type, filled by cpu/<op>.cc and cuda/<op>.cu at start-up.
//
// An op is an args struct with `static constexpr const char* kName`, a function `run(Stream&, const Args&)` declared in
// kernels/<op>.h and defined in kernels/<op>.cc, which checks shapes and then calls `launch`. A backend file says
//   const RegisterCpu<RmsNormForward> registered{rms_norm_forward};
#pragma once

#include "core/error.h"
#include "core/stream.h"

namespace hadal::kernels {

template <class Args>
using Implementation = void (*)(Stream&, const Args&);

template <class Args>
struct Slots {
  Implementation<Args> cpu = nullptr;
  Implementation<Args> cuda = nullptr;
};

template <class Args>
inline constinit Slots<Args> slots{};

template <class Args>
struct RegisterCpu {
  explicit RegisterCpu(Implementation<Args> implementation) { slots<Args>.cpu = implementation; }
};

template <class Args>
struct RegisterCuda {
  explicit RegisterCuda(Implementation<Args> implementation) { slots<Args>.cuda = implementation; }
};

/// Calls the implementation of the stream's device; a missing one is an error that names op and device.
template <class Args>
void launch(Stream& stream, const Args& args) {
  const Implementation<Args> implementation = stream.device().is_cpu() ? slots<Args>.cpu : slots<Args>.cuda;
  HADAL_CHECK(implementation != nullptr, "op {} has no implementation for {}", Args::kName, name_of(stream.device()));
  implementation(stream, args);
}

}  // namespace hadal::kernels
