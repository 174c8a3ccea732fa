// The fixed parts of the HTML page.
#pragma once

#include <string_view>

namespace hadal::report {

std::string_view page_style();
/// The empty frame that the script fills.
std::string_view page_body();
/// Scales, line charts with hover and zoom, heat maps.
std::string_view page_script_charts();
/// Which charts there are, the controls, the table and the settings.
std::string_view page_script_layout();

}  // namespace hadal::report
