// What the keys are, for people and editors; made from config.h alone.
#pragma once

#include <string>
#include <string_view>

namespace hadal::config {

/// JSON Schema (draft 2020-12) of a configuration file, for completion and checks in editors.
std::string json_schema();

/// The reference page: one table per section with key, values, default and meaning.
std::string markdown_reference();

/// One key ("optim.lr", "data.sources.weight") or section ("model.moe") in a few lines; UserError with the nearest keys when
/// there is no such key.
std::string explain(std::string_view path);

}  // namespace hadal::config
