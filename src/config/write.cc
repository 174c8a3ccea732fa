#include "config/write.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <variant>
#include <vector>

#include "config/binding.h"
#include "config/scalar.h"

namespace hadal {
namespace {

using config::Field;
using config::Fields;

/// Plain where no YAML reader could take it for anything but text, else in double quotes.
std::string text_scalar(const std::string& text) {
  const auto plain = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '.' || c == '/' ||
           c == '-';
  };
  const bool word = !text.empty() && std::all_of(text.begin(), text.end(), plain) &&
                    text.find_first_of("/_") != std::string::npos && text[0] != '-' && text[0] != '.' &&
                    !(text[0] >= '0' && text[0] <= '9');
  if (word) return text;
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') quoted += '\\';
    quoted += c;
  }
  return quoted + '"';
}

/// A leaf value as YAML.
struct ScalarText {
  const Field& field;
  std::string operator()(const bool* value) const { return *value ? "true" : "false"; }
  std::string operator()(const std::int64_t* value) const { return fmt::format("{}", *value); }
  std::string operator()(const double* value) const { return config::number_text(*value); }
  std::string operator()(const std::string* value) const { return text_scalar(*value); }
  std::string operator()(const std::vector<std::int64_t>* values) const { return numbers(*values); }
  std::string operator()(const std::vector<double>* values) const { return numbers(*values); }
  std::string operator()(const config::ChoiceRef& choice) const { return std::string(field.choices[choice.get()]); }
  std::string operator()(const config::ListRef&) const { return ""; }
  std::string operator()(config::SectionRef) const { return ""; }

  template <class T>
  static std::string numbers(const std::vector<T>& values) {
    std::string text;
    for (const T value : values) text += fmt::format("{}{}", text.empty() ? "" : ", ", value);
    return fmt::format("[{}]", text);
  }
};

class Writer {
 public:
  explicit Writer(const std::function<std::string(std::string_view)>& comment) : comment_(comment) {}

  void fields(const Fields& fields, const std::string& path, std::size_t indent) {
    for (const Field& field : fields) {
      const std::string key = config::join_path(path, field.name);
      start_line(indent);
      text_ += fmt::format("{}:", field.name);
      if (field.is_section()) {
        text_ += '\n';
        this->fields(field.children, key, indent + 2);
      } else if (field.is_list()) {
        list(std::get<config::ListRef>(field.value), key, indent + 2);
      } else {
        text_ += ' ' + std::visit(ScalarText{field}, field.value);
        end_line(key);
      }
    }
  }

  std::string take() { return std::move(text_); }

 private:
  void list(const config::ListRef& list, const std::string& path, std::size_t indent) {
    if (list.size() == 0) text_ += " []";
    end_line(path);
    for (std::size_t i = 0; i < list.size(); ++i) {
      item_ = true;
      fields(list.element(i), config::join_path(path, std::to_string(i)), indent + 2);
    }
  }

  /// The first key of a list element follows "- ".
  void start_line(std::size_t indent) {
    text_ += std::string(item_ ? indent - 2 : indent, ' ');
    if (item_) text_ += "- ";
    item_ = false;
  }

  void end_line(const std::string& path) {
    const std::string comment = comment_ ? comment_(path) : std::string();
    if (!comment.empty()) {
      const std::size_t start = text_.rfind('\n') + 1;
      constexpr std::size_t kCommentColumn = 40;
      text_ += std::string(text_.size() - start < kCommentColumn ? kCommentColumn - (text_.size() - start) : 1, ' ');
      text_ += fmt::format(" # {}", comment);
    }
    text_ += '\n';
  }

  const std::function<std::string(std::string_view)>& comment_;
  std::string text_;
  bool item_ = false;
};

}  // namespace

std::string to_yaml(const Config& config) { return to_yaml(config, {}); }

std::string to_yaml(const Config& config, const std::function<std::string(std::string_view path)>& comment) {
  Config copy = config;
  Writer writer(comment);
  writer.fields(config::bind(copy), "", 0);
  return writer.take();
}

Hash128 config_hash(const Config& config) {
  const std::string text = to_yaml(config);
  return hash128(std::as_bytes(std::span(text)));
}

}  // namespace hadal
