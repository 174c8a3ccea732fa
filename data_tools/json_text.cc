#include "data_tools/json_text.h"

#include <fmt/core.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "core/error.h"

namespace hadal::data_tools {
namespace {

constexpr int kMaxDepth = 64;

/// Keeps one string; everything else passes by. A false return stops the parser, with `error` set.
class TextFinder : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit TextFinder(const std::string& key) : key_(key) {}

  bool null() override { return other("null"); }
  bool boolean(bool) override { return other("a boolean"); }
  bool number_integer(std::int64_t) override { return other("a number"); }
  bool number_unsigned(std::uint64_t) override { return other("a number"); }
  bool number_float(double, const std::string&) override { return other("a number"); }
  bool binary(nlohmann::json::binary_t&) override { return other("binary"); }
  bool string(std::string& value) override {
    if (depth_ == 0) return other("a string");
    if (!wanted_) return true;
    wanted_ = false;
    text = std::move(value);
    return true;
  }
  bool start_object(std::size_t) override {
    if (wanted_) return other("an object");
    return deeper();
  }
  bool end_object() override {
    --depth_;
    return true;
  }
  bool start_array(std::size_t) override {
    if (depth_ == 0 || wanted_) return other("an array");
    return deeper();
  }
  bool end_array() override {
    --depth_;
    return true;
  }
  bool key(std::string& name) override {
    wanted_ = depth_ == 1 && name == key_;
    if (wanted_ && found) return fail(fmt::format("the key \"{}\" appears twice", key_));
    found = found || wanted_;
    return true;
  }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::json::exception& exception) override {
    const std::string_view what = exception.what();
    const std::size_t colon = what.find(": ");
    place = position == 0 ? 0 : position - 1;
    return fail("not valid JSON: " + std::string(what.substr(colon == std::string_view::npos ? 0 : colon + 2)));
  }

  std::string text;
  bool found = false;
  std::size_t place = 0;
  std::string error;

 private:
  bool fail(std::string reason) {
    error = std::move(reason);
    return false;
  }
  bool deeper() { return ++depth_ > kMaxDepth ? fail(fmt::format("nested deeper than {}", kMaxDepth)) : true; }
  bool other(const char* kind) {
    if (depth_ == 0) return fail(fmt::format("{} where an object with the key \"{}\" is wanted", kind, key_));
    if (wanted_) return fail(fmt::format("\"{}\" is {}, not a string", key_, kind));
    return true;
  }

  const std::string& key_;
  int depth_ = 0;
  bool wanted_ = false;
};

}  // namespace

std::string json_text(std::string_view line, const std::string& key, const std::string& file, std::uint64_t line_number,
                      std::uint64_t offset) {
  TextFinder finder(key);
  const bool parsed = nlohmann::json::sax_parse(line.begin(), line.end(), &finder);
  if (!parsed || !finder.error.empty()) {
    throw UserError("{}:{}: {} (byte {} of the text)", file, line_number, finder.error, offset + finder.place);
  }
  if (!finder.found) {
    throw UserError("{}:{}: no key \"{}\" (byte {} of the text); --text-key names another", file, line_number, key, offset);
  }
  return std::move(finder.text);
}

}  // namespace hadal::data_tools
