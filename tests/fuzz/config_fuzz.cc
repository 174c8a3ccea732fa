// Any bytes as a configuration file: refused with a UserError, or accepted, and then the canonical form reads back the same.
// The first line, when it starts with '#', is also given as an override without the '#'.
//   build/fuzz/tests/fuzz/fuzz_config -max_len=4096 -dict=tests/fuzz/config.dict -max_total_time=60 CORPUS configs/model
//   configs/run
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "config/load.h"
#include "config/write.h"
#include "core/error.h"
#include "model/engine_notes.h"
#include "model/parameter_count.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  std::vector<std::string> overrides;
  if (text.starts_with('#')) overrides.push_back(text.substr(1, text.find('\n') - 1));
  try {
    const hadal::LoadedConfig loaded = hadal::load_config_text(text, "fuzz.yaml", overrides);
    const std::string canonical = hadal::to_yaml(loaded.config);
    if (hadal::to_yaml(hadal::load_config_text(canonical, "canonical.yaml").config) != canonical) std::abort();
    hadal::model::engine_notes(loaded.config.model);
    hadal::model::count_parameters(loaded.config.model);
  } catch (const hadal::UserError&) {
    // Refused, as it should be; anything else that is thrown ends the fuzzer.
  }
  return 0;
}
