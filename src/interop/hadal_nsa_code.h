// The Python files that are written beside an exported hadal_nsa model, so that transformers loads it with trust_remote_code.
// Their text is src/interop/hadal_nsa/*.py, put into the program by CMake.
#pragma once

#include <string_view>
#include <utility>
#include <vector>

namespace hadal::interop {

/// File name and contents.
std::vector<std::pair<std::string_view, std::string_view>> hadal_nsa_code();

}  // namespace hadal::interop
