#include "config/load.h"

#include <fmt/core.h>

#include <algorithm>
#include <memory>
#include <system_error>
#include <utility>

#include "config/apply.h"
#include "config/inert.h"
#include "config/override.h"
#include "config/validate.h"
#include "core/error.h"
#include "core/file.h"

namespace hadal {
namespace {

namespace fs = std::filesystem;
using config::Place;
using config::Source;
using config::Value;

constexpr std::size_t kMaxIncludeDepth = 16;
constexpr std::size_t kMaxFiles = 256;

class Loader {
 public:
  explicit Loader(bool resolved) : resolved_(resolved) {}

  LoadedConfig load(const std::string& name, std::string text, const std::vector<std::string>& overrides) {
    include_file(fs::path(name), std::move(text));
    for (const std::string& override_text : overrides) config::apply_override(override_text, fields_, target_);
    if (!problems_.empty()) problems_.raise();
    for (const config::Violation& violation : config::find_violations(loaded_.config)) {
      problems_.add(place_of(violation.keys), violation.message + elsewhere(violation.keys));
    }
    if (!problems_.empty()) problems_.raise();
    for (const auto& [path, place] : origins_) loaded_.origins.emplace(path, place.text());
    loaded_.inert = config::describe_inert(loaded_.config, loaded_.origins);
    return std::move(loaded_);
  }

 private:
  void include_file(const fs::path& path, std::string text) {
    const auto source = std::make_shared<const Source>(Source{path.string(), std::move(text), true, resolved_});
    const Value root = config::parse_yaml(source, problems_);
    open_files_.push_back(identity(path));
    for (const Value& entry : root.items) {
      if (root.kind == Value::Kind::kMap && entry.key == "include") read_includes(entry, path);
    }
    config::apply_map(root, fields_, "", target_);
    open_files_.pop_back();
  }

  void read_includes(const Value& list, const fs::path& from) {
    if (resolved_) {
      problems_.add(list.place, "include: a resolved configuration includes nothing");
      return;
    }
    if (list.kind != Value::Kind::kList) {
      problems_.add(list.place, "include: a list is wanted: [base.yaml]");
      return;
    }
    for (const Value& item : list.items) {
      if (item.kind != Value::Kind::kScalar || item.text.empty()) {
        problems_.add(item.place, "include: a file name is wanted");
        continue;
      }
      const fs::path path = (from.parent_path() / item.text).lexically_normal();
      if (std::find(open_files_.begin(), open_files_.end(), identity(path)) != open_files_.end()) {
        problems_.add(item.place, fmt::format("include: {} includes itself through this line", path.string()));
      } else if (open_files_.size() >= kMaxIncludeDepth || ++num_files_ > kMaxFiles) {
        problems_.add(item.place, fmt::format("include: more than {} levels or {} files", kMaxIncludeDepth, kMaxFiles));
      } else {
        std::string text;
        try {
          text = read_file(path, config::kMaxYamlBytes);
        } catch (const Error& failure) {
          problems_.add(item.place, fmt::format("include: {}", failure.what()));
          continue;
        }
        include_file(path, std::move(text));
      }
    }
  }

  static std::string identity(const fs::path& path) {
    std::error_code error;
    const fs::path canonical = fs::weakly_canonical(path, error);
    return error ? path.string() : canonical.string();
  }

  /// Where the first of `keys` that was set stands.
  Place place_of(const std::vector<std::string>& keys) const {
    for (const std::string& key : keys) {
      const auto found = origins_.find(key);
      if (found != origins_.end()) return found->second;
    }
    return {};
  }

  /// " (model.hidden_size: a.yaml:3:5; model.num_heads: default)" for a violation of several keys.
  std::string elsewhere(const std::vector<std::string>& keys) const {
    if (keys.size() < 2) return "";
    std::string text;
    for (const std::string& key : keys) text += fmt::format("{}{}: {}", text.empty() ? "" : "; ", key, place_of({key}).text());
    return fmt::format(" ({})", text);
  }

  bool resolved_;
  LoadedConfig loaded_;
  config::Fields fields_ = config::bind(loaded_.config);
  config::Origins origins_;
  config::Problems problems_;
  config::Target target_{fields_, origins_, problems_};
  std::vector<std::string> open_files_;
  std::size_t num_files_ = 0;
};

}  // namespace

LoadedConfig load_config(const fs::path& path, const std::vector<std::string>& overrides) {
  return load_config_text(read_file(path, config::kMaxYamlBytes), path.string(), overrides);
}

LoadedConfig load_config_text(const std::string& text, const std::string& name, const std::vector<std::string>& overrides) {
  return Loader(false).load(name, text, overrides);
}

Config load_resolved_config(const std::string& text, const std::string& name) { return Loader(true).load(name, text, {}).config; }

}  // namespace hadal
