#include "config/yaml_document.h"

#include <fmt/core.h>
#include <yaml-cpp/anchor.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include <sstream>
#include <string_view>
#include <utility>

#include "config/environment.h"
#include "config/utf8.h"

namespace hadal::config {
namespace {

/// Ends the parse; the problem has been recorded.
struct Stop {};

class TreeBuilder : public YAML::EventHandler {
 public:
  TreeBuilder(const std::shared_ptr<const Source>& source, Problems& problems) : source_(source), problems_(problems) {}

  Value take() { return std::move(root_); }
  Place place_of(const YAML::Mark& mark) const { return {source_, mark.line + 1, mark.column + 1}; }

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (documents_++ > 0) stop(mark, "a second document (---): a configuration is one document");
  }
  void OnDocumentEnd() override {}
  void OnAnchor(const YAML::Mark& mark, const std::string&) override { refuse(mark, "anchors (&) are not read; use include"); }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
    refuse(mark, "aliases (*) are not read; use include");
    add(leaf(Value::Kind::kNull, mark));
  }
  void OnNull(const YAML::Mark& mark, YAML::anchor_t) override {
    if (expects_key()) stop(mark, "an empty key");
    add(leaf(Value::Kind::kNull, mark));
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t, const std::string& value) override {
    check_tag(mark, tag);
    if (expects_key()) {
      open_.back().key = value;
      open_.back().key_place = place_of(mark);
      open_.back().has_key = true;
      return;
    }
    Value scalar = leaf(Value::Kind::kScalar, mark);
    Expanded expanded = expand_environment(value, scalar.place, problems_);
    scalar.text = std::move(expanded.text);
    scalar.quoted = tag == "!" && !expanded.one_reference;
    add(std::move(scalar));
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t, YAML::EmitterStyle::value) override {
    open(Value::Kind::kList, mark, tag);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t, YAML::EmitterStyle::value) override {
    open(Value::Kind::kMap, mark, tag);
  }
  void OnMapEnd() override { close(); }

 private:
  struct Open {
    Value value;
    std::string key;
    Place key_place;
    bool has_key = false;
  };

  [[noreturn]] void stop(const YAML::Mark& mark, const std::string& message) {
    problems_.add(place_of(mark), message);
    throw Stop{};
  }
  void refuse(const YAML::Mark& mark, const std::string& message) { problems_.add(place_of(mark), message); }
  void check_tag(const YAML::Mark& mark, const std::string& tag) {
    if (!tag.empty() && tag != "?" && tag != "!") refuse(mark, "tags (!) are not read; a key's type is fixed, remove the tag");
  }
  bool expects_key() const { return !open_.empty() && open_.back().value.kind == Value::Kind::kMap && !open_.back().has_key; }

  Value leaf(Value::Kind kind, const YAML::Mark& mark) const {
    Value value;
    value.kind = kind;
    value.place = place_of(mark);
    return value;
  }
  void open(Value::Kind kind, const YAML::Mark& mark, const std::string& tag) {
    check_tag(mark, tag);
    if (expects_key()) stop(mark, "a map or a list where a key is wanted");
    if (open_.size() >= kMaxYamlDepth) stop(mark, fmt::format("nested deeper than {} levels", kMaxYamlDepth));
    open_.push_back({leaf(kind, mark), {}, {}, false});
  }
  void close() {
    Value value = std::move(open_.back().value);
    open_.pop_back();
    add(std::move(value));
  }
  void add(Value value) {
    if (open_.empty()) {
      root_ = std::move(value);
      return;
    }
    Open& parent = open_.back();
    if (parent.value.kind == Value::Kind::kMap) {
      value.key = std::move(parent.key);
      value.key_place = parent.key_place;
      // The parser marks an absent value at whatever comes next.
      if (value.kind == Value::Kind::kNull) value.place = value.key_place;
      parent.has_key = false;
    }
    parent.value.items.push_back(std::move(value));
  }

  std::shared_ptr<const Source> source_;
  Problems& problems_;
  std::vector<Open> open_;
  Value root_;
  int documents_ = 0;
};

/// Text-level rules: size, encoding, tabs. False when the text must not reach the parser.
bool text_is_sane(const std::shared_ptr<const Source>& source, Problems& problems) {
  const std::string_view text = source->text;
  if (text.size() > kMaxYamlBytes) {
    problems.add({source, 0, 0}, fmt::format("{} bytes; a configuration has at most {}", text.size(), kMaxYamlBytes));
    return false;
  }
  int line = 1;
  std::size_t line_start = 0;
  bool indentation = true, sane = true;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    const Place place{source, line, static_cast<int>(i - line_start) + 1};
    if (c == '\n') {
      ++line;
      line_start = i + 1;
      indentation = true;
      continue;
    }
    if (c == '\t' && indentation) {
      problems.add(place, "a tab in the indentation: use spaces");
      return false;
    }
    const unsigned char byte = static_cast<unsigned char>(c);
    if ((byte < 0x20 && c != '\t' && c != '\r') || byte == 0x7f) {
      problems.add(place, fmt::format("control character 0x{:02x}", byte));
      return false;
    }
    indentation = indentation && c == ' ';
  }
  const std::size_t bad = first_invalid_utf8(text);
  if (bad != std::string_view::npos) {
    problems.add({source, 0, 0}, fmt::format("byte {} is not UTF-8", bad));
    sane = false;
  }
  return sane;
}

}  // namespace

Value parse_yaml(const std::shared_ptr<const Source>& source, Problems& problems) {
  Value empty;
  empty.kind = Value::Kind::kMap;
  empty.place = {source, 1, 1};
  if (!text_is_sane(source, problems)) return empty;
  TreeBuilder builder(source, problems);
  try {
    std::istringstream stream(source->text);
    YAML::Parser parser(stream);
    while (parser.HandleNextDocument(builder)) {
    }
  } catch (const Stop&) {
    return empty;
  } catch (const YAML::Exception& failure) {
    problems.add(failure.mark.is_null() ? Place{source, 0, 0} : builder.place_of(failure.mark),
                 fmt::format("not YAML: {}", failure.msg));
    return empty;
  }
  Value root = builder.take();
  return root.kind == Value::Kind::kNull ? empty : root;
}

}  // namespace hadal::config
