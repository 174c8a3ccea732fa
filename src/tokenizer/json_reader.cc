#include "tokenizer/json_reader.h"

#include <fmt/core.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/strict_json.h"

namespace hadal::tokenizer {
namespace {

const nlohmann::json& json_of(const void* value) { return *static_cast<const nlohmann::json*>(value); }

}  // namespace

struct JsonReader::Document {
  std::string file;
  nlohmann::json root;
};

JsonReader JsonReader::parse(std::string_view text, const std::string& file) {
  const auto document = std::make_shared<const Document>(Document{file, parse_strict_json(text, file)});
  return JsonReader(document, &document->root, "");
}

bool JsonReader::is_null() const { return json_of(value_).is_null(); }
bool JsonReader::is_object() const { return json_of(value_).is_object(); }
bool JsonReader::is_string() const { return json_of(value_).is_string(); }
std::size_t JsonReader::size() const { return json_of(value_).size(); }

void JsonReader::refuse(std::string_view reason) const {
  throw UserError("{}: {}: {}", document_->file, place_.empty() ? "the document" : place_, reason);
}

void JsonReader::want(bool right, std::string_view wanted) const {
  if (!right) refuse(fmt::format("expected {}, found {}", wanted, json_of(value_).type_name()));
}

const JsonReader& JsonReader::object() const {
  want(json_of(value_).is_object(), "an object");
  return *this;
}

const JsonReader& JsonReader::array() const {
  want(json_of(value_).is_array(), "an array");
  return *this;
}

const std::string& JsonReader::string() const {
  want(json_of(value_).is_string(), "a string");
  return json_of(value_).get_ref<const std::string&>();
}

bool JsonReader::boolean() const {
  want(json_of(value_).is_boolean(), "true or false");
  return json_of(value_).get<bool>();
}

double JsonReader::number() const {
  want(json_of(value_).is_number(), "a number");
  return json_of(value_).get<double>();
}

std::int32_t JsonReader::integer(std::int32_t limit) const {
  const nlohmann::json& value = json_of(value_);
  want(value.is_number_integer(), "an integer");
  const bool fits = value.is_number_unsigned() && value.get<std::uint64_t>() <= static_cast<std::uint64_t>(limit);
  if (!fits) refuse(fmt::format("{} is outside 0 .. {}", value.dump(), limit));
  return value.get<std::int32_t>();
}

JsonReader JsonReader::member(const std::string& key) const {
  static const nlohmann::json null;
  const nlohmann::json& value = json_of(object().value_);
  const auto found = value.find(key);
  return JsonReader(document_, found == value.end() ? &null : &*found, place_.empty() ? key : place_ + "." + key);
}

JsonReader JsonReader::element(std::size_t index) const {
  const nlohmann::json& value = json_of(array().value_);
  HADAL_CHECK(index < value.size(), "element {} of {}", index, value.size());
  return JsonReader(document_, &value[index], fmt::format("{}[{}]", place_, index));
}

void JsonReader::for_each_member(const std::function<void(const std::string&, const JsonReader&)>& visit) const {
  const nlohmann::json& value = json_of(object().value_);
  for (auto member = value.begin(); member != value.end(); ++member) {
    visit(member.key(), JsonReader(document_, &*member, place_.empty() ? member.key() : place_ + "." + member.key()));
  }
}

void JsonReader::only(std::initializer_list<std::string_view> known) const {
  for_each_member([&](const std::string& key, const JsonReader&) {
    for (const std::string_view name : known) {
      if (name == key) return;
    }
    refuse(fmt::format("unknown key '{}'", key));
  });
}

}  // namespace hadal::tokenizer
