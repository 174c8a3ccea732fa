#include "interop/hadal_nsa_code.h"

namespace hadal::interop {
namespace text {
// Defined in the file that CMake makes of src/interop/hadal_nsa/*.py.
extern const std::string_view configuration_hadal_nsa;
extern const std::string_view modeling_hadal_nsa;
}  // namespace text

std::vector<std::pair<std::string_view, std::string_view>> hadal_nsa_code() {
  return {{"configuration_hadal_nsa.py", text::configuration_hadal_nsa}, {"modeling_hadal_nsa.py", text::modeling_hadal_nsa}};
}

}  // namespace hadal::interop
