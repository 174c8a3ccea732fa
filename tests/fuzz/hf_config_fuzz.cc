// libFuzzer target: any text as the config.json of an HF model directory.
//
//   fuzz_hf_config -max_len=4096 CORPUS      (good first entries: the config.json files of tests/parity/fixtures)
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "core/error.h"
#include "interop/hf_config.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  using namespace hadal;
  try {
    interop::parse_hf_config({reinterpret_cast<const char*>(bytes), size}, "config.json");
  } catch (const ContractError&) {
    throw;
  } catch (const Error&) {
  }
  return 0;
}
