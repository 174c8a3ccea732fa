#include "core/error.h"

namespace hadal::detail {

void contract_failed(const char* file, int line, const char* expression, const std::string& message) {
  throw ContractError(fmt::format("{}:{}: check failed: {}{}{}", file, line, expression, message.empty() ? "" : ": ", message));
}

}  // namespace hadal::detail
