#include "checkpoint/embedded_config.h"

#include <string>

#include "config/load.h"
#include "config/write.h"

namespace hadal::checkpoint {

void set_config(State& state, const Config& config) {
  state.set(kConfigKey, to_yaml(config));
  state.set(kConfigHashKey, config_hash(config).hex());
}

Config config_of(const CheckpointReader& reader) {
  // Somebody else's checkpoint must not make us read other files, or the environment.
  return load_resolved_config(reader.state().text(kConfigKey), (reader.path() / "manifest.json").string() + " (config)");
}

}  // namespace hadal::checkpoint
