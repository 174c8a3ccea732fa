#include "config/json.h"

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <variant>
#include <vector>

#include "config/binding.h"

namespace hadal {
namespace {

using Json = nlohmann::ordered_json;
using config::Field;
using config::Fields;

Json object(const Fields& fields);

Json value(const Field& field) {
  struct ToJson {
    const Field& field;
    Json operator()(const bool* v) const { return *v; }
    Json operator()(const std::int64_t* v) const { return *v; }
    Json operator()(const double* v) const { return *v; }
    Json operator()(const std::string* v) const { return *v; }
    Json operator()(const std::vector<std::int64_t>* v) const { return *v; }
    Json operator()(const std::vector<double>* v) const { return *v; }
    Json operator()(const config::ChoiceRef& choice) const { return field.choices[choice.get()]; }
    Json operator()(const config::ListRef& list) const {
      Json array = Json::array();
      for (std::size_t i = 0; i < list.size(); ++i) array.push_back(object(list.element(i)));
      return array;
    }
    Json operator()(config::SectionRef) const { return object(field.children); }
  };
  return std::visit(ToJson{field}, field.value);
}

Json object(const Fields& fields) {
  Json result = Json::object();
  for (const Field& field : fields) result[std::string(field.name)] = value(field);
  return result;
}

}  // namespace

std::string to_json(const Config& config) {
  Config copy = config;
  return object(config::bind(copy)).dump(2);
}

}  // namespace hadal
