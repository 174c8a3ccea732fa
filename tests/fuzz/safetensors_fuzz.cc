// libFuzzer target: any bytes as a safetensors file; what opens is read whole. Only hadal::Error may come out, and no tensor may
// claim more bytes than the input has.
//
//   fuzz_safetensors -max_len=4096 CORPUS      (a good first entry: any model.safetensors of tests/parity/fixtures)
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "core/error.h"
#include "interop/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  using namespace hadal;
  const int descriptor = ::memfd_create("safetensors", MFD_CLOEXEC);
  if (descriptor < 0) return 0;
  if (::write(descriptor, bytes, size) == static_cast<ssize_t>(size)) {
    try {
      const auto file = interop::SafetensorsReader::open("/proc/self/fd/" + std::to_string(descriptor));
      for (const interop::SafetensorsInfo& info : file.tensors()) {
        if (info.bytes > size) std::abort();
        if (interop::dtype_of(info.type)) file.read(info.name);
      }
    } catch (const Error&) {
    }
  }
  ::close(descriptor);
  return 0;
}
