// JSON from untrusted files: RFC 8259 with duplicate keys and deep nesting refused.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string_view>

#include "core/error.h"

namespace hadal {

/// Parses the whole of `text`. Anything else than one JSON value with unique keys, finite numbers and at most 32 levels is a
/// UserError, or a DamagedDataError when `code` says so, that starts with `where` (a file name).
nlohmann::json parse_strict_json(std::string_view text, std::string_view where, ExitCode code = ExitCode::kBadInput);

}  // namespace hadal
