// A JSON value with its place in the file: typed access that ends in one sentence naming file, place, what was wanted and
// what was found.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>

namespace hadal::tokenizer {

class JsonReader {
 public:
  /// Parses `text`; malformed text, duplicate keys and deep nesting are refused (core/strict_json.h).
  static JsonReader parse(std::string_view text, const std::string& file);

  bool is_null() const;
  bool is_object() const;
  bool is_string() const;

  [[noreturn]] void refuse(std::string_view reason) const;

  /// Itself; refused when the value is of another type. The others give the value.
  const JsonReader& object() const;
  const JsonReader& array() const;
  const std::string& string() const;
  bool boolean() const;
  double number() const;
  /// In [0, limit].
  std::int32_t integer(std::int32_t limit) const;

  /// Member `key` of an object, null when absent.
  JsonReader member(const std::string& key) const;
  /// Element of an array, index < size().
  JsonReader element(std::size_t index) const;
  std::size_t size() const;
  void for_each_member(const std::function<void(const std::string& key, const JsonReader& value)>& visit) const;
  /// Refuses an object with members outside `known`.
  void only(std::initializer_list<std::string_view> known) const;

 private:
  struct Document;
  JsonReader(std::shared_ptr<const Document> document, const void* value, std::string place)
      : document_(std::move(document)), value_(value), place_(std::move(place)) {}
  void want(bool right, std::string_view wanted) const;

  std::shared_ptr<const Document> document_;
  const void* value_;  // a JSON value inside the document
  std::string place_;  // "model.merges[3]"
};

}  // namespace hadal::tokenizer
