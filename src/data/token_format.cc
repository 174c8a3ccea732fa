#include "data/token_format.h"

#include <fmt/core.h>

#include <cstdlib>
#include <cstring>
#include <ctime>
#include <span>
#include <variant>

#include "core/error.h"

namespace hadal::data {
namespace {

void update_text(Hasher& hasher, const std::string& text) {
  hasher.update(std::as_bytes(std::span(text.c_str(), text.size() + 1)));
}

std::string value_text(const Hdf5Attribute& attribute) {
  if (const auto* text = std::get_if<std::string>(&attribute.value)) return *text;
  if (const auto* number = std::get_if<std::int64_t>(&attribute.value)) return std::to_string(*number);
  return std::to_string(std::get<std::uint64_t>(attribute.value));
}

}  // namespace

std::string utc_now() {
  std::time_t now = std::time(nullptr);
  if (const char* epoch = std::getenv("SOURCE_DATE_EPOCH"); epoch != nullptr && *epoch != '\0') {
    char* end = nullptr;
    const long long given = std::strtoll(epoch, &end, 10);
    if (*end != '\0' || given < 0 || given > 253402300799) {
      throw UserError("SOURCE_DATE_EPOCH={}: not a number of seconds since 1970", epoch);
    }
    now = static_cast<std::time_t>(given);
  }
  std::tm parts{};
  gmtime_r(&now, &parts);
  std::array<char, 32> text{};
  std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text.data();
}

void hash_attributes(Hasher& hasher, const std::map<std::string, Hdf5Attribute>& attributes) {
  for (const auto& [name, attribute] : attributes) {
    if (name == "head_hash" || name == "complete") continue;
    update_text(hasher, name);
    update_text(hasher, value_text(attribute));
  }
}

std::array<std::byte, kUserBlockBytes> make_user_block(std::uint64_t metadata_end, std::uint64_t file_bytes,
                                                       const Hash128& metadata_hash) {
  std::array<std::byte, kUserBlockBytes> block{};
  const std::uint64_t fields[] = {1, metadata_end, file_bytes, metadata_hash.low, metadata_hash.high};
  std::memcpy(block.data(), kUserBlockMagic.data(), kUserBlockMagic.size());
  std::memcpy(block.data() + 8, fields, sizeof fields);
  return block;
}

}  // namespace hadal::data
