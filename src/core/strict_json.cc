#include "core/strict_json.h"

#include <nlohmann/json.hpp>
#include <string>
#include <unordered_set>
#include <vector>

namespace hadal {
namespace {

constexpr int kMaxDepth = 32;

/// Thrown out of the parser's callback.
struct Refused {
  std::string reason;
};

}  // namespace

nlohmann::json parse_strict_json(std::string_view text, std::string_view where, ExitCode code) {
  using Event = nlohmann::json::parse_event_t;
  std::vector<std::unordered_set<std::string>> keys;
  const auto watch = [&](int depth, Event event, nlohmann::json& parsed) {
    if (event == Event::object_start || event == Event::array_start) {
      if (depth >= kMaxDepth) throw Refused{fmt::format("nested deeper than {} levels", kMaxDepth)};
      if (event == Event::object_start) keys.emplace_back();
    } else if (event == Event::object_end) {
      keys.pop_back();
    } else if (event == Event::key) {
      const auto& key = parsed.get_ref<const std::string&>();
      if (!keys.back().insert(key).second) throw Refused{fmt::format("key \"{}\" appears twice", key.substr(0, 64))};
    }
    return true;
  };
  const auto refuse = [&](const std::string& reason) {
    if (code == ExitCode::kDamagedData) throw DamagedDataError("{}: {}", where, reason);
    throw UserError("{}: {}", where, reason);
  };
  try {
    return nlohmann::json::parse(text.begin(), text.end(), watch);
  } catch (const Refused& refused) {
    refuse(refused.reason);
  } catch (const nlohmann::json::exception& error) {
    refuse(fmt::format("not valid JSON: {}", error.what()));
  }
  return {};
}

}  // namespace hadal
