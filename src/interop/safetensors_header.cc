#include "interop/safetensors_header.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <tuple>
#include <unordered_set>

#include "core/error.h"

namespace hadal::interop {
namespace {

/// A tensor's entry while its keys arrive.
struct Entry {
  std::string name;
  std::optional<StoredType> type;
  std::optional<std::vector<std::int64_t>> shape;
  std::optional<std::vector<std::int64_t>> offsets;
};

/// Accepts exactly the header's grammar; every handler returns false at the first thing outside it, with `reason` set.
class HeaderGrammar : public nlohmann::json_sax<nlohmann::json> {
 public:
  std::vector<Entry> entries;
  std::map<std::string, std::string> metadata;
  std::string reason;
  bool complete = false;

  bool null() override { return unexpected("null"); }
  bool boolean(bool) override { return unexpected("a boolean"); }
  bool number_integer(number_integer_t) override { return unexpected("a negative number"); }
  bool number_float(number_float_t, const string_t&) override { return unexpected("a fraction"); }
  bool binary(binary_t&) override { return unexpected("binary data"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (numbers_ == nullptr) return unexpected("a number");
    if (value > static_cast<number_unsigned_t>(std::numeric_limits<std::int64_t>::max())) return fail("a number above 2^63");
    if (numbers_->size() >= limit_) return fail(fmt::format("an array longer than {}", limit_));
    numbers_->push_back(static_cast<std::int64_t>(value));
    return true;
  }

  bool string(string_t& text) override {
    if (place_ == Place::kMetadata) {
      metadata[key_] = text;
      return true;
    }
    if (place_ != Place::kTensor || key_ != "dtype" || numbers_ != nullptr) return unexpected("a string");
    entries.back().type = stored_type_of(text);
    if (!entries.back().type) return fail(fmt::format("dtype \"{}\" is not known", text.substr(0, 32)));
    key_.clear();
    return true;
  }

  bool start_object(std::size_t) override {
    if (complete || numbers_ != nullptr) return unexpected("an object");
    if (place_ == Place::kStart) {
      place_ = Place::kTop;
      return true;
    }
    if (place_ != Place::kTop) return unexpected("an object");
    place_ = key_ == "__metadata__" ? Place::kMetadata : Place::kTensor;
    if (place_ == Place::kTensor) entries.push_back({key_, {}, {}, {}});
    seen_inside_.clear();
    key_.clear();
    return true;
  }

  bool key(string_t& text) override {
    const bool top = place_ == Place::kTop;
    if (!(top ? seen_ : seen_inside_).insert(text).second) return fail(fmt::format("\"{}\" appears twice", text.substr(0, 64)));
    if (top && text != "__metadata__" && !is_tensor_name(text)) {
      return fail(fmt::format("tensor name \"{}\" is not [A-Za-z0-9._-]{{1,255}}", text.substr(0, 64)));
    }
    if (place_ == Place::kTensor && text != "dtype" && text != "shape" && text != "data_offsets") {
      return fail(fmt::format("tensor {} has an unknown key \"{}\"", entries.back().name, text.substr(0, 64)));
    }
    key_ = text;
    return true;
  }

  bool end_object() override {
    if (place_ == Place::kTensor) {
      const Entry& entry = entries.back();
      if (!entry.type || !entry.shape || !entry.offsets || entry.offsets->size() != 2) {
        return fail(fmt::format("tensor {} lacks dtype, shape or two data_offsets", entry.name));
      }
      place_ = Place::kTop;
    } else if (place_ == Place::kMetadata) {
      place_ = Place::kTop;
    } else {
      complete = true;
    }
    return true;
  }

  bool start_array(std::size_t) override {
    if (place_ != Place::kTensor || numbers_ != nullptr || (key_ != "shape" && key_ != "data_offsets"))
      return unexpected("an array");
    auto& target = key_ == "shape" ? entries.back().shape : entries.back().offsets;
    limit_ = key_ == "shape" ? static_cast<std::size_t>(Shape::kMaxRank) : 2;
    numbers_ = &target.emplace();
    return true;
  }

  bool end_array() override {
    numbers_ = nullptr;
    key_.clear();
    return true;
  }

  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& error) override {
    return fail(fmt::format("not JSON at header byte {}: {}", position, error.what()));
  }

 private:
  enum class Place { kStart, kTop, kMetadata, kTensor };

  bool fail(std::string text) {
    if (reason.empty()) reason = std::move(text);
    return false;
  }
  bool unexpected(std::string_view what) {
    return fail(fmt::format("{} where the format has none (key \"{}\")", what, key_.substr(0, 64)));
  }

  Place place_ = Place::kStart;
  std::string key_;
  std::vector<std::int64_t>* numbers_ = nullptr;
  std::size_t limit_ = 0;
  std::unordered_set<std::string> seen_;
  std::unordered_set<std::string> seen_inside_;
};

/// Product of the extents times the element size; nothing on overflow.
std::optional<std::uint64_t> byte_count(const std::vector<std::int64_t>& extents, StoredType type) {
  std::int64_t product = 1;
  for (const std::int64_t extent : extents) {
    if (__builtin_mul_overflow(product, extent, &product)) return std::nullopt;
  }
  if (__builtin_mul_overflow(product, static_cast<std::int64_t>(size_of(type)), &product)) return std::nullopt;
  return static_cast<std::uint64_t>(product);
}

}  // namespace

bool is_tensor_name(std::string_view name) {
  return !name.empty() && name.size() <= 255 && std::ranges::all_of(name, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
  });
}

SafetensorsHeader parse_safetensors_header(const std::filesystem::path& path, std::string_view json, std::uint64_t file_bytes) {
  const auto refuse = [&](const std::string& reason) -> DamagedDataError {
    return DamagedDataError("{}: not a valid safetensors file: {}", path.string(), reason);
  };
  if (json.empty() || json[0] != '{') throw refuse("the header does not start with '{'");
  HeaderGrammar grammar;
  bool accepted = false;
  try {
    accepted = nlohmann::json::sax_parse(json.begin(), json.end(), &grammar);
  } catch (const nlohmann::json::exception& error) {
    throw refuse(error.what());
  }
  if (!accepted || !grammar.complete) throw refuse(grammar.reason.empty() ? "the header is incomplete" : grammar.reason);

  SafetensorsHeader header;
  header.metadata = std::move(grammar.metadata);
  std::ranges::stable_sort(grammar.entries, {},
                           [](const Entry& entry) { return std::pair(entry.offsets->at(0), entry.offsets->at(1)); });
  const std::uint64_t data = 8 + json.size();
  std::uint64_t next = 0;
  for (Entry& entry : grammar.entries) {
    const auto begin = static_cast<std::uint64_t>(entry.offsets->at(0));
    const auto end = static_cast<std::uint64_t>(entry.offsets->at(1));
    const std::optional<std::uint64_t> bytes = byte_count(*entry.shape, *entry.type);
    if (!bytes) throw refuse(fmt::format("the shape of tensor {} overflows", entry.name));
    if (begin != next)
      throw refuse(fmt::format("tensor {} starts at data byte {}, the one before ends at {}", entry.name, begin, next));
    if (end < begin || end - begin != *bytes) {
      throw refuse(fmt::format("tensor {} has data bytes [{}, {}), its dtype and shape need {}", entry.name, begin, end, *bytes));
    }
    if (end > file_bytes - data) {
      throw refuse(fmt::format("tensor {} ends at data byte {}, the file holds {}", entry.name, end, file_bytes - data));
    }
    header.tensors.push_back(
        {std::move(entry.name), *entry.type, Shape(std::span<const std::int64_t>(*entry.shape)), data + begin, *bytes});
    next = end;
  }
  if (next != file_bytes - data) {
    throw refuse(fmt::format("the tensors end at data byte {}, the file holds {}", next, file_bytes - data));
  }
  return header;
}

std::string make_safetensors_header(std::vector<SafetensorsInfo>& tensors, std::map<std::string, std::string> metadata) {
  std::ranges::sort(tensors, {}, [](const SafetensorsInfo& info) { return std::tie(info.type, info.name); });
  metadata["format"] = "pt";
  std::string text = "{\"__metadata__\":" + nlohmann::json(metadata).dump();
  std::uint64_t next = 0;
  std::unordered_set<std::string_view> seen;
  for (SafetensorsInfo& info : tensors) {
    HADAL_CHECK(is_tensor_name(info.name), "tensor name \"{}\"", info.name);
    HADAL_CHECK(seen.insert(info.name).second, "tensor {} is written twice", info.name);
    info.bytes = static_cast<std::uint64_t>(info.shape.numel()) * size_of(info.type);
    info.begin = next;
    next += info.bytes;
    text += fmt::format(",\"{}\":{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}", info.name, name_of(info.type),
                        fmt::join(info.shape.extents(), ","), info.begin, next);
  }
  text += "}";
  text.resize((text.size() + 7) / 8 * 8, ' ');
  HADAL_CHECK(text.size() <= kMaxSafetensorsHeader, "safetensors header of {} bytes", text.size());
  for (SafetensorsInfo& info : tensors) info.begin += 8 + text.size();
  std::string head(8, '\0');
  for (std::size_t i = 0; i < 8; ++i) head[i] = static_cast<char>((text.size() >> (8 * i)) & 0xff);
  return head + text;
}

}  // namespace hadal::interop
