// UTF-8 validity (RFC 3629) of configuration text.
#pragma once

#include <cstddef>
#include <string_view>

namespace hadal::config {

/// Offset of the first byte that does not belong to well-formed UTF-8, or std::string_view::npos.
std::size_t first_invalid_utf8(std::string_view text);

}  // namespace hadal::config
