#include "config/write.h"

#include <fmt/core.h>

#include <cstddef>
#include <span>
#include <utility>
#include <variant>

#include "config/binding.h"
#include "config/value_text.h"

namespace hadal {
namespace {

using config::Field;
using config::Fields;

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
        text_ += ' ' + config::value_text(field);
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
