#include "report/planned.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/file.h"
#include "core/strict_json.h"

namespace hadal::report {
namespace {

constexpr std::uint64_t kPlanBytes = std::uint64_t{16} << 20;
constexpr std::size_t kNameBytes = 100;
/// More ranks than this no plan is made for.
constexpr double kMostRanks = 1 << 24;
constexpr double kMost = 1e18;

/// Reads keys of the one object; what does not fit becomes a UserError that names the key.
class Reader {
 public:
  Reader(const nlohmann::json& object, const std::string& where) : object_(object), where_(where) {
    if (!object.is_object()) throw UserError("{}: no object", where);
  }

  double number(const char* key, double low, double high) const { return checked(member(key), key, low, high); }

  double largest(const char* key) const {
    const nlohmann::json& list = member(key);
    if (!list.is_array() || list.empty()) throw UserError("{}: {} is no list of numbers", where_, key);
    double most = 0;
    for (const nlohmann::json& entry : list) most = std::max(most, checked(entry, key, 0, kMost));
    return most;
  }

  /// Text for a terminal.
  std::string name(const char* key) const {
    const nlohmann::json& node = member(key);
    const std::string text = node.is_string() ? node.get<std::string>() : "";
    const bool clean = std::ranges::none_of(text, [](unsigned char c) { return c < 0x20 || c >= 0x7f; });
    if (text.empty() || text.size() > kNameBytes || !clean) throw UserError("{}: {} is no name", where_, key);
    return text;
  }

 private:
  const nlohmann::json& member(const char* key) const {
    const auto found = object_.find(key);
    if (found == object_.end()) throw UserError("{}: has no {}", where_, key);
    return *found;
  }

  double checked(const nlohmann::json& node, const char* key, double low, double high) const {
    const double value = node.is_number() ? node.get<double>() : std::nan("");
    if (!(value >= low && value <= high)) throw UserError("{}: {} is no number from {} to {}", where_, key, low, high);
    return value;
  }

  const nlohmann::json& object_;
  const std::string& where_;
};

}  // namespace

PlanRead read_plan(const std::filesystem::path& run_dir) {
  const std::filesystem::path path = run_dir / "plan.json";
  const std::string where = path.string();
  std::error_code failure;
  if (!std::filesystem::exists(path, failure) && !failure) {
    return {std::nullopt, where + " is not there: the run wrote no forecast when it started"};
  }
  try {
    const nlohmann::json json = parse_strict_json(read_file(path, kPlanBytes), where);
    const Reader plan(json, where);
    Planned figures{.machine = plan.name("machine"),
                    .num_ranks = static_cast<std::int64_t>(plan.number("num_ranks", 1, kMostRanks)),
                    .memory_bytes = plan.largest("peak_bytes"),
                    .step_ms = plan.number("step_ms", 0, kMost),
                    .tokens_per_s = plan.number("tokens_per_s_per_gpu", 0, kMost),
                    .waited_share = plan.number("waited_share", 0, 1)};
    figures.tokens_per_s *= static_cast<double>(figures.num_ranks);
    return {std::move(figures), ""};
  } catch (const Error& error) {
    // A key of the file may be part of the sentence.
    std::string sentence = error.what();
    std::ranges::replace_if(sentence, [](unsigned char c) { return c < 0x20 || c == 0x7f; }, '?');
    return {std::nullopt, sentence};
  }
}

}  // namespace hadal::report
