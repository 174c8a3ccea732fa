// The small state of a run that travels with a checkpoint: step, tokens, data cursor, seed, resolved config, ...
// A flat map from key to integer, number or text; the trainer decides which keys.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace hadal::checkpoint {

class State {
 public:
  using Value = std::variant<std::int64_t, std::uint64_t, double, std::string>;

  void set(std::string key, std::int64_t value) { values_[std::move(key)] = value; }
  void set(std::string key, int value) { set(std::move(key), static_cast<std::int64_t>(value)); }
  void set(std::string key, std::uint64_t value) { values_[std::move(key)] = value; }
  /// Finite; comes back bit for bit.
  void set(std::string key, double value);
  void set(std::string key, std::string value) { values_[std::move(key)] = std::move(value); }
  void set(std::string key, const char* value) { set(std::move(key), std::string(value)); }

  bool has(std::string_view key) const { return values_.find(key) != values_.end(); }
  /// DamagedDataError naming the key when it is absent or of another type.
  std::int64_t integer(std::string_view key) const;
  std::uint64_t unsigned_integer(std::string_view key) const;
  double number(std::string_view key) const;
  const std::string& text(std::string_view key) const;

  const std::map<std::string, Value, std::less<>>& values() const { return values_; }

 private:
  const Value& at(std::string_view key) const;

  std::map<std::string, Value, std::less<>> values_;
};

}  // namespace hadal::checkpoint
