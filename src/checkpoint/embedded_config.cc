#include "checkpoint/embedded_config.h"

#include <string>

#include "config/load.h"
#include "config/write.h"
#include "core/error.h"

namespace hadal::checkpoint {

void set_config(State& state, const Config& config) {
  state.set(kConfigKey, to_yaml(config));
  state.set(kConfigHashKey, config_hash(config).hex());
}

Config config_of(const CheckpointReader& reader) {
  const std::string& text = reader.state().text(kConfigKey);
  const std::string name = (reader.path() / "manifest.json").string() + " (config)";
  // A resolved config includes nothing; somebody else's checkpoint must not make us read other files.
  if (text.starts_with("include") || text.find("\ninclude") != std::string::npos) {
    throw DamagedDataError("{}: an embedded config has no include", name);
  }
  return load_config_text(text, name).config;
}

}  // namespace hadal::checkpoint
