// The report as one HTML file: data, style and script inside, nothing loaded from anywhere. Light and dark.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "report/run_data.h"

namespace hadal::report {

/// The whole page.
std::string html_page(std::span<const Run> runs, std::string_view title);

/// Text between tags or in an attribute.
std::string html_escape(std::string_view text);
/// JSON inside a <script> element: "</" would end it.
std::string script_safe(std::string json);

}  // namespace hadal::report
