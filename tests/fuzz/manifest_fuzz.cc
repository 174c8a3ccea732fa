// libFuzzer target: any text as a checkpoint's manifest. What is accepted must say the same when written and read again.
//
//   fuzz_manifest -max_len=8192 CORPUS      (a good first entry: manifest.json of any step directory)
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "checkpoint/manifest.h"
#include "core/error.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  using namespace hadal;
  try {
    const auto manifest = checkpoint::parse_manifest({reinterpret_cast<const char*>(bytes), size}, "manifest.json");
    const std::string text = checkpoint::to_json(manifest);
    if (checkpoint::to_json(checkpoint::parse_manifest(text, "again")) != text) std::abort();
  } catch (const ContractError&) {
    throw;
  } catch (const Error&) {
  }
  return 0;
}
