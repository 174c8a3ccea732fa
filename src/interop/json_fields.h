// Typed access to the keys of an untrusted JSON object; problems are collected, so that all of them are told at once.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace hadal::interop {

/// Keys that are absent or null count as not given.
class JsonFields {
 public:
  /// `problems` receives one sentence per finding; `prefix` stands before keys in them ("rope_scaling.").
  JsonFields(const nlohmann::json& object, std::vector<std::string>& problems, std::string prefix = "")
      : object_(object), problems_(problems), prefix_(std::move(prefix)) {}

  bool has(const char* key) const;
  /// An integer in [low, high]; with a fallback the key may be missing, without it that is a problem.
  std::int64_t integer(const char* key, std::int64_t low, std::int64_t high, std::optional<std::int64_t> fallback = {}) const;
  double number(const char* key, double low, double high, std::optional<double> fallback = {}) const;
  bool boolean(const char* key, std::optional<bool> fallback = {}) const;
  std::string text(const char* key, std::optional<std::string> fallback = {}) const;
  /// The object behind `key`, or nullptr when it is not given.
  const nlohmann::json* object(const char* key) const;
  /// Ascending list of integers in [low, high]; empty when not given.
  std::vector<std::int64_t> integers(const char* key, std::int64_t low, std::int64_t high) const;

  /// The key may only be missing, null or false / of this text.
  void only_false(const char* key, const char* why) const;
  void only_text(const char* key, std::string_view allowed, const char* why) const;
  void problem(const char* key, const std::string& text) const;

 private:
  const nlohmann::json* find(const char* key) const;

  const nlohmann::json& object_;
  std::vector<std::string>& problems_;
  std::string prefix_;
};

}  // namespace hadal::interop
